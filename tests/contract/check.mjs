// check.mjs OPENAPI whole|part DIR... - validates what suites said to agents and heard from them (traces of
// curl, see agent_lib.sh) against the document, and tells which operations and fields none of them used.
import { readdirSync, readFileSync, statSync, existsSync } from "node:fs";
import { join } from "node:path";
import { contract } from "./contract.mjs";

const [openapi, whole, ...dirs] = process.argv.slice(2);
const api = contract(openapi);
const TRACE_MAX = 16 << 20;

// The exchanges in one `curl --trace`: hexadecimal lines below what they are.
function exchanges(text) {
    const found = [];
    let now = null, part = null;
    for (const line of text.split("\n")) {
        const head = /^(=>|<=) (Send|Recv) (header|data)/.exec(line);
        const hex = /^[0-9a-f]{4,}: ((?:[0-9a-f]{2} ){1,16})/.exec(line);
        if (head) {
            part = head[2] + head[3];
            if (part === "Sendheader") found.push(now = { Sendheader: [], Senddata: [], Recvheader: [], Recvdata: [] });
        } else if (hex && now && part) {
            for (const byte of hex[1].trim().split(" ")) now[part].push(parseInt(byte, 16));
        } else if (line.startsWith("==")) part = null;
    }
    return found.map((e) => Object.fromEntries(Object.entries(e).map(([k, v]) => [k, Buffer.from(v).toString("utf8")])));
}

function parsed(exchange) {
    const request = /^(\S+) (\S+) HTTP/.exec(exchange.Sendheader);
    const blocks = exchange.Recvheader.split("\r\n\r\n").filter((b) => b && !b.startsWith("HTTP/1.1 100"));
    const status = /^HTTP\/1.1 (\d+)/.exec(blocks[0] ?? "");
    if (!request || !status) return null;
    const headers = Object.fromEntries(blocks[0].split("\r\n").slice(1).map((l) => [
        l.slice(0, l.indexOf(":")).toLowerCase(), l.slice(l.indexOf(":") + 1).trim()]));
    const length = headers["content-length"];
    return {
        method: request[1], target: request[2], path: request[2].split("?")[0], status: Number(status[1]), headers,
        sent: exchange.Senddata, body: exchange.Recvdata,
        complete: length !== undefined && Buffer.byteLength(exchange.Recvdata) === Number(length),
    };
}

// Every named property below a schema, as `Schema.field`, that the value has.
const had = new Set(), all = new Set(); // seen; in the document
function properties(at, value, depth, use) {
    const { at: place, value: schema } = api.find(at);
    if (!schema || depth > 12) return;
    for (const key of ["allOf", "oneOf", "anyOf"])
        (schema[key] ?? []).forEach((_, i) => properties([...place, key, i], value, depth + 1, use));
    for (const name of Object.keys(schema.properties ?? {})) {
        const id = [...place, "properties", name].slice(place[0] === "components" ? 2 : 0).join(".").replaceAll(".properties.", ".");
        const there = value && typeof value === "object" && name in value;
        if (!use) all.add(id);
        else if (there) had.add(id);
        if (!use || there)
            properties([...place, "properties", name], use ? value[name] : null, depth + 1, use);
    }
    if (schema.items) {
        if (!use) properties([...place, "items"], null, depth + 1, use);
        else if (Array.isArray(value)) for (const item of value) properties([...place, "items"], item, depth + 1, use);
    }
}
for (const name of Object.keys(api.document.components.schemas)) properties(["components", "schemas", name], null, 0, false);

const counts = new Map(), statuses = new Map();
const wrong = new Map();
let checked = 0;
for (const dir of dirs.filter(existsSync)) {
    for (const name of readdirSync(dir)) {
        const file = join(dir, name);
        if (statSync(file).size > TRACE_MAX) continue;
        for (const exchange of exchanges(readFileSync(file, "latin1"))) {
            const e = parsed(exchange);
            const operation = e && api.operation(e.method, e.path);
            if (!operation) continue;
            checked++;
            counts.set(operation.id, (counts.get(operation.id) ?? 0) + 1);
            statuses.set(`${operation.id} ${e.status}`, true);
            const what = api.wrong(operation, e);
            if (what) wrong.set(`${operation.id} ${e.status}: ${what}`, `${e.method} ${e.target} in ${file}: ${e.body.slice(0, 200)}`);
            const response = api.document.paths[operation.path][operation.method.toLowerCase()].responses;
            const at = api.find([...operation.at, "responses", response[e.status] ? String(e.status) : "default"]);
            const type = Object.keys(at.value?.content ?? {}).find((t) => /json/.test(t));
            try { if (type) properties([...at.at, "content", type, "schema"], JSON.parse(e.body), 0, true); } catch {}
            const sent = Object.keys(operation.body?.value.content ?? {}).find((t) => /json/.test(t));
            try { if (sent) properties([...operation.body.at, "content", sent, "schema"], JSON.parse(e.sent), 0, true); } catch {}
        }
    }
}

let passed = 0, failed = 0, skipped = 0;
const ok = (name) => { passed++; console.log(`ok   ${name}`); };
const fail = (name) => { failed++; console.log(`FAIL ${name}`); };
for (const [what, where] of wrong) fail(`${what} (${where})`);
if (checked === 0) fail("no exchange was recorded: run a suite of tests/integration first");
else if (wrong.size === 0) ok(`${checked} recorded exchanges are as the document says`);
const never = api.operations.filter((o) => !counts.has(o.id)).map((o) => o.id);
const unseen = [...all].filter((id) => !had.has(id));
const undone = api.operations.flatMap((o) => Object.keys(api.document.paths[o.path][o.method.toLowerCase()].responses)
    .filter((s) => s !== "default" && !statuses.has(`${o.id} ${s}`)).map((s) => `${o.id} ${s}`));
console.log(`     statuses that were never seen, ${undone.length}: ${undone.join(", ")}`);
if (whole !== "whole") {
    skipped++;
    console.log("skip every operation and field is exercised: not all suites ran");
} else {
    if (never.length) fail(`operations that no suite uses: ${never.join(", ")}`);
    else ok(`each of ${api.operations.length} operations is exercised`);
    if (unseen.length) fail(`fields that no suite sends or hears: ${unseen.join(", ")}`);
    else ok(`each of ${all.size} fields is exercised`);
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed ? 1 : 0);
