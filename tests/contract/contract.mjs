// contract.mjs - openapi.yaml as the tests see it: operations, and validators of what they say.
import { readFileSync } from "node:fs";
import Ajv from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { parse } from "yaml";

const methods = ["get", "put", "post", "patch", "delete"];

export function contract(path) {
    const document = parse(readFileSync(path, "utf8"));
    const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true });
    formats(ajv);
    ajv.addSchema(document, "openapi");
    const pointer = (at) => "openapi#" + at.map((key) => "/" + encodeURIComponent(String(key)
        .replaceAll("~", "~0").replaceAll("/", "~1"))).join("");

    // Follows $ref; returns the place where the value itself stands.
    function find(at) {
        let value = document;
        for (const key of at) value = value?.[key];
        return value?.$ref ? find(value.$ref.slice(2).split("/")) : { at, value };
    }

    const operations = [];
    for (const [path, item] of Object.entries(document.paths))
        for (const method of methods.filter((m) => item[m]))
            operations.push({
                id: item[method].operationId, method: method.toUpperCase(), path, at: ["paths", path, method],
                pattern: new RegExp("^" + path.replace(/[.]/g, "\\.").replace(/\{[^}]*\}/g, "[^/]+") + "$"),
                parameters: [...(item.parameters ?? []).map((_, i) => ["paths", path, "parameters", i]),
                    ...(item[method].parameters ?? []).map((_, i) => ["paths", path, method, "parameters", i])]
                    .map((at) => find(at)),
                body: item[method].requestBody && find(["paths", path, method, "requestBody"]),
            });

    return {
        document, ajv, find, operations, pointer,
        operation: (method, path) => operations.find((o) => (o.method === method ||
            (method === "HEAD" && o.method === "GET")) && o.pattern.test(path)),
        // What is wrong with an answer, or null.  body: text.
        wrong(operation, { method, status, headers, body, complete }) {
            const known = document.paths[operation.path][operation.method.toLowerCase()].responses;
            const key = known[status] ? String(status) : "default";
            if (!known[key]) return `status ${status} is not in the document`;
            const response = find([...operation.at, "responses", key]);
            for (const [name, header] of Object.entries(response.value.headers ?? {})) {
                const { at } = header.$ref ? find(header.$ref.slice(2).split("/")) : find([...response.at, "headers", name]);
                const value = headers[name.toLowerCase()];
                if (value !== undefined && !ajv.getSchema(pointer([...at, "schema"]))(value))
                    return `header ${name}: ${value} is not as the document says`;
            }
            if (method === "HEAD" || status === 101 || !complete) return null;
            const content = response.value.content;
            if (!content) return body === "" ? null : `status ${status} has a body, which the document does not say`;
            const squeeze = (text) => text?.replace(/\s/g, "").toLowerCase();
            const type = Object.keys(content).find((t) => squeeze(t) === squeeze(headers["content-type"]));
            if (!type) return `status ${status} has the type ${headers["content-type"]}, which the document does not say`;
            if (!/json/.test(type)) return null;
            let value;
            try { value = JSON.parse(body); } catch { return "its body is no JSON"; }
            const validate = ajv.getSchema(pointer([...response.at, "content", type, "schema"]));
            return validate(value) ? null : ajv.errorsText(validate.errors.slice(0, 3), { dataVar: "body" });
        },
    };
}
