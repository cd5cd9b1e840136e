// client.ts SOCKET KERNEL - the main job through a client that is generated from openapi.yaml: imports a
// kernel, makes a network, a volume and a VM, starts it, reads its console, stops and deletes all of it.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import { Agent, fetch as undiciFetch, type RequestInit as UndiciInit } from "undici";
import type { paths } from "./openapi.js";

const [socketPath, kernel] = process.argv.slice(2) as [string, string];
const dispatcher = new Agent({ connect: { socketPath }, headersTimeout: 60_000, bodyTimeout: 60_000 });
const client = createClient<paths>({
    baseUrl: "http://localhost",
    // The client's Request is Node's own, which knows no dispatcher.
    fetch: async (request: Request) => (await undiciFetch(request.url, {
        method: request.method, headers: Object.fromEntries(request.headers), dispatcher,
        body: request.body ? await request.text() : undefined,
    } as UndiciInit)) as unknown as Response,
});

let passed = 0;
function ok(name: string) { passed++; console.log(`ok   client: ${name}`); }
function good<T>(answer: { data?: T; error?: unknown; response: { status: number } }, status: number): T {
    assert.equal(answer.response.status, status, JSON.stringify(answer.error ?? answer.data));
    return answer.data as T;
}
const at = (id: string, query = {}) => ({ params: { path: { id }, query } });
const wait = { wait: 30 };

try {
    const node = good(await client.GET("/v1/node", { params: { query: { vcpus: 2, memory_mib: 512 } } }), 200);
    assert.ok((node.fits ?? 0) > 0 && node.counts.vms === 0);
    ok("GET /v1/node tells how many VMs fit");
    const image = good(await client.PUT("/v1/images/{id}", {
        ...at("guest", wait), body: { kind: "kernel", source: kernel } }), 201);
    assert.equal(image.status.state, "ready");
    ok("a kernel is imported");
    good(await client.PUT("/v1/networks/{id}", { ...at("net", wait), body: { cidr: "10.91.0.0/24", mode: "isolated" } }), 201);
    good(await client.PUT("/v1/volumes/{id}", { ...at("root", wait), body: { size_mib: 4 } }), 201);
    ok("a network and a volume are made");
    const vm = good(await client.PUT("/v1/vms/{id}", {
        ...at("web", wait), body: {
            vcpus: 1, memory_mib: 8, boot: { kernel: "guest", cmdline: "wait" },
            disks: [{ name: "root", volume: "root" }], nics: [{ name: "eth0", network: "net" }],
            labels: { "prometheus.io/port": "9100" }, desired_state: "stopped",
        } }), 201);
    assert.equal(vm.status.state, "stopped");
    assert.deepEqual(good(await client.GET("/v1/prometheus/targets"), 200), []);
    good(await client.POST("/v1/vms/{id}/start", at("web", wait)), 200);
    const waited = good(await client.GET("/v1/vms/{id}/wait", {
        params: { path: { id: "web" }, query: { for: "running", timeout: 30 } } }), 200);
    assert.ok(waited.reached);
    ok("a VM is made, and started");
    const targets = good(await client.GET("/v1/prometheus/targets"), 200);
    assert.deepEqual(targets.map((t) => [t.labels.vm, t.labels.__metrics_path__]), [["web", "/metrics"]]);
    ok("it is a target of Prometheus");
    let text = "";
    for (let tries = 0; tries < 200 && !text; tries++) {
        text = good(await client.GET("/v1/vms/{id}/console", {
            params: { path: { id: "web" }, query: { tail: 65536 } }, parseAs: "text" }), 200) as string;
        if (!text) await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(text.length > 0);
    ok("its console is read");
    const refused = await client.DELETE("/v1/volumes/{id}", at("root"));
    assert.equal(refused.response.status, 409);
    assert.equal(refused.error?.type, "urn:warren:problem:busy");
    ok("a volume in use is kept, with a problem that has a type");
    good(await client.POST("/v1/vms/{id}/kill", at("web", wait)), 200);
    good(await client.DELETE("/v1/vms/{id}", at("web", wait)), 200);
    good(await client.DELETE("/v1/volumes/{id}", at("root", wait)), 200);
    good(await client.DELETE("/v1/networks/{id}", at("net", wait)), 200);
    good(await client.DELETE("/v1/images/{id}", at("guest", wait)), 200);
    ok("all of it is deleted");
    console.log(`${passed} passed, 0 failed, 0 skipped`);
} catch (error) {
    console.log(`FAIL client: ${(error as Error).message.replaceAll("\n", " ")}`);
    console.log(`${passed} passed, 1 failed, 0 skipped`);
    process.exitCode = 1;
} finally {
    await dispatcher.close();
}
