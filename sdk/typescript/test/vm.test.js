// Everything against a real server: RDS_URL and RDS_API_KEY say which. It has to know a VM_SECRET_KEY.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { inspect } from "node:util";
import { gunzipSync } from "node:zlib";
import { Client, RdsError } from "run-dat-sheesh";

const { RDS_URL: url, RDS_API_KEY: apiKey } = process.env;
assert(url && apiKey, "RDS_URL and RDS_API_KEY say which server is tested with");
const client = new Client();
let vm;
before(async () => {
  vm = await client.createVm({ labels: { made: "by the client" } });
});
after(() => vm.delete());

/** Whether something is thrown for what the server said. */
const refused = (status, code) => (error) => error instanceof RdsError && error.status === status && error.code === code;

test("a VM is what was asked for", async () => {
  assert.equal(vm.data.memMb, 256);
  assert.equal(vm.data.labels.made, "by the client");
  assert.equal((await client.vm(vm.id)).data.state, "RUNNING");
  assert((await client.vms()).some(({ id }) => id === vm.id));
  const images = await client.api.GET("/v1/images");
  assert(images.data.some(({ id }) => id === vm.data.imageId));
});

test("commands run to their end", async () => {
  const { exitCode, stdout, stderr } = await vm.exec("pwd; echo $A >&2; exit 3", { cwd: "/tmp", env: { A: "grüße" } });
  assert.deepEqual([exitCode, stdout, stderr], [3, "/tmp\n", "grüße\n"]);
  assert.equal((await vm.exec("sleep 60", { timeoutMs: 200 })).exitCode, -1);
});

test("output comes as it is written", async () => {
  const events = [];
  for await (const event of vm.stream("echo one; sleep 0.3; echo zwölf >&2; sleep 0.3; exit 4")) events.push(event);
  assert.deepEqual(events, [
    { type: "stdout", text: "one\n" },
    { type: "stderr", text: "zwölf\n" },
    { type: "exit", exitCode: 4, timedOut: false, truncated: false },
  ]);
});

test("who leaves the loop kills the command", async () => {
  for await (const event of vm.stream("echo begun; exec sleep 4321")) {
    assert.equal(event.text, "begun\n");
    break;
  }
  const gone = async () => (await vm.exec("pgrep -f '^sleep 4321$'")).exitCode === 1;
  const limit = Date.now() + 10_000;
  while (!(await gone())) assert(Date.now() < limit, "it runs on");
});

test("a signal ends a call", async () => {
  await assert.rejects(vm.exec("sleep 60", { signal: AbortSignal.timeout(300) }), { name: "TimeoutError" });
});

test("scripts give results and errors", async () => {
  const script = "const name: string = Deno.env.get('WHO')!; result.set({ hello: name });";
  assert.deepEqual((await vm.runTs(script, { env: { WHO: "world" } })).result, { hello: "world" });
  const failed = await vm.runJs("throw new TypeError('no')");
  assert.equal(failed.error.name, "TypeError");
  await vm.writeFile("/workspace/answer.mjs", "result.set(6 * 7)");
  assert.equal((await vm.runJs({ path: "answer.mjs" })).result, 42);
});

test("files are bytes", async () => {
  const bytes = Uint8Array.from({ length: 70_000 }, (_, at) => at % 256);
  await vm.writeFile("/workspace/deep/down/bytes", bytes);
  assert.deepEqual(await vm.readFile("/workspace/deep/down/bytes"), bytes);
  await vm.writeFile("/workspace/deep/hello", "#!/bin/sh\necho grüße\n", { executable: true });
  assert.equal((await vm.exec("deep/hello")).stdout, "grüße\n");
  const { entries } = await vm.listFiles("/workspace/deep");
  assert.deepEqual(entries.map(({ name, type }) => [name, type]), [["down", "directory"], ["hello", "file"]]);
  assert.equal((await vm.stat("/workspace/deep/down/bytes")).size, 70_000);
  await assert.rejects(vm.readFile("/workspace/none"), refused(404, "not_found"));
  await assert.rejects(vm.writeFile("/etc/passwd", ""), refused(400, "invalid_request"));
});

test("directories go in and out as archives", async () => {
  await vm.writeFile("/workspace/pack/file", "packed");
  const archive = await vm.download("/workspace/pack");
  assert(gunzipSync(archive).includes("packed"));
  await vm.upload(archive, "/workspace/unpacked");
  assert.equal((await vm.exec("cat unpacked/file")).stdout, "packed");
});

test("snapshots and forks have what the VM had", async () => {
  await vm.writeFile("/workspace/kept", "kept");
  const { id } = await vm.snapshot();
  const copies = [await client.createVm({ userOverlaySnapshotId: id }), ...(await vm.fork(2, { secretEnv: { FORKED: "yes" } }))];
  assert.equal(copies.length, 3);
  for (const copy of copies) assert.equal((await copy.exec("cat kept")).stdout, "kept");
  assert.equal((await copies[1].exec("echo $FORKED")).stdout, "yes\n");
  await Promise.all(copies.map((copy) => copy.delete()));
  await client.api.DELETE("/v1/snapshots/{id}", { params: { path: { id } } });
});

test("secrets are there until they are taken away", async () => {
  const provider = await client.createVm({ secretEnv: { TOKEN: "s3cret=with=signs" } });
  try {
    assert.equal((await provider.exec("echo $TOKEN")).stdout, "s3cret=with=signs\n");
    await provider.setSecrets({});
    assert.equal((await provider.exec("echo $TOKEN")).stdout, "\n");
  } finally {
    await provider.delete();
  }
});

test("a VM is paused, stopped and deleted", async () => {
  const other = await client.createVm();
  await other.pause();
  assert.equal((await other.refresh()).data.state, "PAUSED");
  await other.resume();
  assert.equal((await other.refresh()).data.state, "RUNNING");
  await other.stop();
  await assert.rejects(other.exec("true"), (error) => error instanceof RdsError && error.status === 409);
  await other.start();
  await other.syncPeers();
  assert.equal((await other.exec("true")).exitCode, 0);
  await other[Symbol.asyncDispose]();
  await assert.rejects(client.vm(other.id), refused(404, "not_found"));
  // The end of a block is not its failure.
  await other[Symbol.asyncDispose]();
});

test("nobody sees the key, nor what was meant to be a secret", async () => {
  assert(!inspect([client, vm], { depth: Infinity, showHidden: true }).includes(apiKey));
  assert.throws(() => new Client({ apiKey: "a-wrong\nkey" }), (error) => !inspect(error).includes("a-wrong"));
  const swapped = client.createVm({ secretEnv: { "s3cret=": "TOKEN" } });
  await assert.rejects(swapped, (error) => error instanceof TypeError && !inspect(error).includes("s3cret"));
  const wrong = new Client({ apiKey: "a-wrong-key" });
  await assert.rejects(wrong.vms(), (error) => refused(401, "unauthorized")(error) && !inspect(error).includes("a-wrong-key"));
});
