// calls.mjs OPENAPI SOCKET [CALLS [SEED]] - calls generated from the document's schemas, some as it says,
// some nearly so: none is answered with an undocumented 5xx or not as the document says, none hangs.
import fc from "fast-check";
import { Agent, request } from "undici";
import { contract } from "./contract.mjs";

const [openapi, socketPath, calls = "400", seed = String(Date.now() % 1e9)] = process.argv.slice(2);
const HANG_MS = 60_000; // no call here waits that long, however loaded the machine
const api = contract(openapi);
const agent = new Agent({ connect: { socketPath }, headersTimeout: HANG_MS, bodyTimeout: HANG_MS });

// Few ids, so that calls meet; "guest" and "net" are there, and may be deleted by any of them.
const ids = fc.constantFrom("a", "b", "c", "guest", "net", "vol");
const nonsense = fc.oneof(fc.string({ maxLength: 80 }), fc.integer(), fc.double(), fc.boolean(), fc.constant(null),
    fc.array(fc.integer(), { maxLength: 3 }), fc.constant({}), fc.constantFrom(-1, 2 ** 31, 2 ** 53, "", "\u0000", "../..", "a".repeat(300)));

function value(at, depth = 0) {
    const { at: place, value: schema } = api.find(at);
    const below = (...keys) => value([...place, ...keys], depth + 1);
    if (!schema || depth > 10) return fc.constant(null);
    if (place.at(-1) === "Id") return ids;
    if ("const" in schema) return fc.constant(schema.const);
    if (schema.enum) return fc.constantFrom(...schema.enum);
    if (schema.allOf) return fc.tuple(...schema.allOf.map((_, i) => below("allOf", i))).map((parts) => Object.assign({}, ...parts));
    for (const key of ["oneOf", "anyOf"])
        if (schema[key] && !schema.properties) return fc.oneof(...schema[key].map((_, i) => below(key, i)));
    const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
    if (type === "object" || schema.properties) {
        const model = Object.fromEntries(Object.keys(schema.properties ?? {}).map((name) => [name, below("properties", name)]));
        return fc.record(model, { requiredKeys: (schema.required ?? []).filter((name) => model[name]) });
    }
    if (type === "array") return fc.array(below("items"), { minLength: schema.minItems ?? 0, maxLength: Math.min(schema.maxItems ?? 3, 3) });
    // Small numbers: what is asked for is made.
    if (type === "integer" || type === "number") {
        const min = schema.minimum ?? 0;
        return fc.integer({ min, max: Math.min(schema.maximum ?? min + 64, min + 64) });
    }
    if (type === "boolean") return fc.boolean();
    if (schema.pattern) return fc.stringMatching(new RegExp(schema.pattern), { size: "small" });
    return fc.string({ minLength: schema.minLength ?? 0, maxLength: Math.min(schema.maxLength ?? 20, 20) });
}

// One of its members replaced, taken away, or one put in.
function spoil(body, at, wrong) {
    if (body === null || typeof body !== "object") return wrong;
    const keys = Object.keys(body);
    const copy = Array.isArray(body) ? [...body] : { ...body };
    if (keys.length === 0 || at % 7 === 0) return Array.isArray(copy) ? [...copy, wrong] : { ...copy, nonsense: wrong };
    const key = keys[at % keys.length];
    if (at % 5 === 0) delete copy[key];
    else copy[key] = spoil(copy[key], Math.floor(at / keys.length), wrong);
    return copy;
}

function call(operation) {
    const parts = {};
    for (const parameter of operation.parameters)
        parts[`${parameter.value.in} ${parameter.value.name}`] = { parameter, value: value([...parameter.at, "schema"]) };
    const json = Object.keys(operation.body?.value.content ?? {}).find((type) => /json/.test(type)) ??
        Object.keys(operation.body?.value.content ?? {})[0];
    return fc.record({
        parameters: fc.record(Object.fromEntries(Object.entries(parts).map(([k, p]) => [k, p.value])),
            { requiredKeys: Object.keys(parts).filter((k) => parts[k].parameter.value.required) }),
        body: json ? value([...operation.body.at, "content", json, "schema"]) : fc.constant(undefined),
        spoilt: fc.option(fc.record({ at: fc.nat(1000), wrong: nonsense, where: fc.constantFrom("body", "query", "path") }), { freq: 2 }),
    }).map(({ parameters, body, spoilt }) => {
        const query = new URLSearchParams(), headers = {};
        let path = operation.path;
        for (const [key, of] of Object.entries(parameters)) {
            const [where, name] = key.split(" ");
            if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(String(of)));
            else if (where === "header" && spoilt?.at % 4 !== 0) continue; // else most are 412
            else if (where === "header") headers[name] = String(of).replace(/[^\x21-\x7e]/g, "") || "x";
            else query.set(name, String(name === "wait" || name === "timeout" ? Number(of) % 2 : of));
        }
        query.delete("follow"); // a stream ends when its VM does
        if (spoilt?.where === "query") query.set(spoilt.at % 2 ? "limit" : "wait", String(spoilt.wrong));
        if (spoilt?.where === "path") path = path.replace(/[^/]+$/, (last) => last + encodeURIComponent(String(spoilt.wrong)));
        if (spoilt?.where === "body" && body !== undefined) body = spoil(body, spoilt.at, spoilt.wrong);
        if (body !== undefined) headers["content-type"] = json;
        const text = body === undefined ? undefined : /json/.test(json) ? JSON.stringify(body) : String(body);
        return { operation, method: operation.method, target: path + (query.size ? `?${query}` : ""), headers, text };
    });
}

const statuses = {};
async function ask({ operation, method, target, headers, text }) {
    const answer = await request(`http://localhost${target}`, { method, headers, body: text, dispatcher: agent, signal: AbortSignal.timeout(HANG_MS) });
    const body = await answer.body.text();
    statuses[answer.statusCode] = (statuses[answer.statusCode] ?? 0) + 1;
    const known = api.document.paths[operation.path][operation.method.toLowerCase()].responses;
    if (answer.statusCode >= 500 && !known[answer.statusCode])
        throw new Error(`${answer.statusCode} ${body.slice(0, 300)}`);
    const matched = api.operation(method, target.split("?")[0]);
    const wrong = matched && api.wrong(matched, { method, status: answer.statusCode, headers: answer.headers, body, complete: true });
    if (wrong) throw new Error(`${answer.statusCode}: ${wrong}: ${body.slice(0, 300)}`);
}

// Upgrades are no calls; tests/integration/vsock has them.
const some = api.operations.filter((o) => !api.document.paths[o.path][o.method.toLowerCase()].responses["101"] && !/events/.test(o.path));
const result = await fc.check(fc.asyncProperty(fc.oneof(...some.map(call)), ask),
    { numRuns: Number(calls), seed: Number(seed), maxSkipsPerRun: 0, endOnFailure: true });
const told = Object.entries(statuses).map(([status, count]) => `${count} x ${status}`).join(", ");
if (result.failed)
    console.log(`FAIL generated calls (seed ${seed}): ${result.counterexample && JSON.stringify({ ...result.counterexample[0], operation: result.counterexample[0].operation.id })}: ${result.errorInstance?.message ?? result.error}`);
else console.log(`ok   ${result.numRuns} generated calls (seed ${seed}): ${told}`);
console.log(`${result.failed ? 0 : 1} passed, ${result.failed ? 1 : 0} failed, 0 skipped`);
process.exitCode = result.failed ? 1 : 0;
await agent.destroy();
