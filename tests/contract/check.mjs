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

// The schemas that one at a place consists of: itself, and what it is made of or a choice of.
function parts(at) {
    const { at: place, value: schema } = api.find(at);
    return [{ place, schema }, ...["allOf", "oneOf", "anyOf"].flatMap((key) =>
        (schema[key] ?? []).flatMap((_, i) => parts([...place, key, i])))];
}

// `Schema.field`
const named = (place, ...fields) => [...place.slice(place[0] === "components" ? 2 : 0), ...fields].join(".").replaceAll(".properties.", ".");
const all = new Set(); // in the document
function properties(at, depth) {
    if (depth > 12) return; // schemas may have themselves within
    for (const { place, schema } of parts(at)) {
        for (const name of Object.keys(schema.properties ?? {})) {
            all.add(named(place, name));
            properties([...place, "properties", name], depth + 1);
        }
        if (schema.items) properties([...place, "items"], depth + 1);
    }
}
for (const name of Object.keys(api.document.components.schemas)) properties(["components", "schemas", name], 0);

// Those that a value has which stands at these places; and fields of answers that no schema there names.
const had = new Set(), unnamed = new Set();
function fields(places, value, answer) {
    const schemas = places.flatMap(parts);
    if (schemas.length === 0) return; // whatever it is, and however deep
    if (Array.isArray(value)) {
        const items = schemas.filter(({ schema }) => schema.items).map(({ place }) => [...place, "items"]);
        for (const item of value) fields(items, item, answer);
    } else if (value && typeof value === "object") {
        const objects = schemas.filter(({ schema }) => schema.properties);
        const open = objects.length === 0 || schemas.some(({ schema }) => schema.additionalProperties);
        for (const [name, member] of Object.entries(value)) {
            const here = objects.filter(({ schema }) => name in schema.properties).map(({ place }) => place);
            for (const place of here) had.add(named(place, name));
            if (answer && !open && here.length === 0) unnamed.add(named(objects[0].place, name));
            fields(here.map((place) => [...place, "properties", name]), member, answer);
        }
    }
}

function json(text) {
    try { return JSON.parse(text); } catch { return null; }
}

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
            const heard = type && json(e.body);
            if (heard) fields([[...at.at, "content", type, "schema"]], heard, true);
            const sent = Object.keys(operation.body?.value.content ?? {}).find((t) => /json/.test(t));
            const said = sent && json(e.sent);
            if (said) fields([[...operation.body.at, "content", sent, "schema"]], said, false);
        }
    }
}

let passed = 0, failed = 0, skipped = 0;
const ok = (name) => { passed++; console.log(`ok   ${name}`); };
const fail = (name) => { failed++; console.log(`FAIL ${name}`); };
for (const [what, where] of wrong) fail(`${what} (${where})`);
if (unnamed.size) fail(`fields of answers that the document does not name: ${[...unnamed].join(", ")}`);
if (checked === 0) fail("no exchange was recorded: run a suite of tests/integration first");
else if (wrong.size + unnamed.size === 0) ok(`${checked} recorded exchanges are as the document says`);
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
