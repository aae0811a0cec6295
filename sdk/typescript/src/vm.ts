import { EventSourceParserStream } from "eventsource-parser/stream";
import type { Client } from "./client.ts";
import { RdsError } from "./error.ts";
import { data, pairs, type Schemas, type Variables } from "./wire.ts";

/** How a command is run. */
export interface ExecOptions {
  /** Its working directory; `/workspace` if absent. */
  cwd?: string;
  /** Variables of this call, besides the VM's secrets. */
  env?: Variables;
  /** Milliseconds after which all that it started is killed; 30,000 if absent. */
  timeoutMs?: number;
  /** Kills it when aborted. */
  signal?: AbortSignal;
}

/** How a script is run: the body of `POST /v1/vms/:id/run-ts` and `/run-js`. */
export type RunOptions = Omit<Schemas["RunRequest"], "env" | "code" | "path"> & Pick<ExecOptions, "env" | "signal">;

/** A module's text, or a file under `/workspace` that holds it. */
export type Script = string | { path: string };

/** What a command did. */
export type ExecResult = Omit<Schemas["RunReply"], "result" | "error">;

/** What happens while a command runs: output as it comes, and its end as the last. */
export type ExecEvent =
  | { type: "stdout" | "stderr"; text: string }
  | { type: "exit"; exitCode: number; timedOut: boolean; truncated: boolean };

/** What forks are granted. Nothing of the sort is inherited. */
export type ForkOptions = Omit<Schemas["ForkVm"], "count" | "secretEnv"> & { secretEnv?: Variables };

/** A VM. The object may be dropped; the VM lives on until it is deleted. */
export class Vm {
  /** What the server last said about it. */
  data: Schemas["Vm"];
  readonly #client: Client;

  /** @internal */
  constructor(client: Client, vm: Schemas["Vm"]) {
    this.#client = client;
    this.data = vm;
  }

  /** Its identity. */
  get id(): string {
    return this.data.id;
  }

  /** Asks the server about it again. */
  async refresh(): Promise<this> {
    this.data = await data(this.#api.GET("/v1/vms/{id}", this.#self));
    return this;
  }

  /**
   * Runs a shell command to its end. One that fails is no error: look at `exitCode`, which is -1 at the time limit. Many
   * runtimes give a reply five minutes; {@link Vm.stream} what may take longer.
   */
  exec(cmd: string, { signal, ...options }: ExecOptions = {}): Promise<ExecResult> {
    const body = { cmd, ...options };
    return data(this.#api.POST("/v1/vms/{id}/exec", { ...this.#self, body, ...(signal && { signal }) }));
  }

  /** Runs a shell command and tells what it writes as it comes. Whoever leaves the loop kills it. */
  async *stream(cmd: string, { signal, ...options }: ExecOptions = {}): AsyncGenerator<ExecEvent, void, void> {
    const body = { cmd, ...options };
    const request = { ...this.#self, body, parseAs: "stream", ...(signal && { signal }) } as const;
    const bytes = await data(this.#api.POST("/v1/vms/{id}/exec/stream", request));
    const events = bytes!.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
    for await (const { event, data } of events) {
      const value = JSON.parse(data);
      switch (event) {
        case "stdout":
        case "stderr":
          yield { type: event, text: value };
          break;
        case "exit":
          yield { type: event, ...value };
          return;
        case "error":
          throw lost(value.message);
      }
    }
    throw lost("the stream ended before the command did");
  }

  /** Runs TypeScript in Deno. `result` is what it gave to `result.set`, `error` its uncaught exception. */
  runTs(script: Script, options: RunOptions = {}): Promise<Schemas["RunReply"]> {
    return this.#run("/v1/vms/{id}/run-ts", script, options);
  }

  /** Runs JavaScript in Node. `result` is what it gave to `result.set`, `error` its uncaught exception. */
  runJs(script: Script, options: RunOptions = {}): Promise<Schemas["RunReply"]> {
    return this.#run("/v1/vms/{id}/run-js", script, options);
  }

  /** The content of a file under `/workspace`. */
  async readFile(path: string): Promise<Uint8Array> {
    return this.#bytes("/v1/vms/{id}/files/content", path);
  }

  /** Writes a file under `/workspace`, and makes its directories. Text is written as UTF-8. */
  async writeFile(path: string, content: string | Uint8Array, { executable = false } = {}): Promise<void> {
    const params = { ...this.#self.params, query: { path, executable } };
    await this.#api.PUT("/v1/vms/{id}/files/content", { params, ...binary(content) });
  }

  /** The entries of a directory under `/workspace`. */
  listFiles(path = "/workspace"): Promise<Schemas["FileList"]> {
    return data(this.#api.GET("/v1/vms/{id}/files/list", this.#at(path)));
  }

  /** What is at a path under `/workspace`. */
  stat(path: string): Promise<Schemas["FileStat"]> {
    return data(this.#api.GET("/v1/vms/{id}/files/stat", this.#at(path)));
  }

  /** Unpacks a tar.gz of at most 10 MiB in a directory under `/workspace`, which is made. */
  async upload(archive: Uint8Array, dest = "/workspace"): Promise<void> {
    const params = { ...this.#self.params, query: { dest } };
    await this.#api.POST("/v1/vms/{id}/files/upload", { params, ...binary(archive) });
  }

  /** A tar.gz of a directory or a file under `/workspace`. */
  download(path = "/workspace"): Promise<Uint8Array> {
    return this.#bytes("/v1/vms/{id}/files/download", path);
  }

  /** Takes a snapshot, of which `createVm({ userOverlaySnapshotId })` makes VMs: of the disk, or with `vm` of the memory, too. */
  snapshot(kind: Schemas["SnapshotKind"] = "user_overlay"): Promise<Schemas["Snapshot"]> {
    return data(this.#api.POST("/v1/vms/{id}/snapshots", { ...this.#self, body: { kind } }));
  }

  /** Makes up to 100 VMs that go on where this one is. */
  async fork(count = 1, { secretEnv, ...options }: ForkOptions = {}): Promise<Vm[]> {
    const body = { count, ...options, ...(secretEnv && { secretEnv: pairs(secretEnv) }) };
    const { vms } = await data(this.#api.POST("/v1/vms/{id}/fork", { ...this.#self, body }));
    return vms.map((vm) => new Vm(this.#client, vm));
  }

  /** Gives it other secrets, without a restart. What is not named is taken away. */
  async setSecrets(secretEnv: Variables): Promise<void> {
    await this.#api.PUT("/v1/vms/{id}/secrets", { ...this.#self, body: { secretEnv: pairs(secretEnv) } });
  }

  /** Has it see what its providers offer now. */
  async syncPeers(): Promise<void> {
    await this.#api.POST("/v1/vms/{id}/peers/sync", this.#self);
  }

  /** Holds it still. The next call into it wakes it. */
  async pause(): Promise<void> {
    await this.#api.POST("/v1/vms/{id}/pause", this.#self);
  }

  /** Has it go on after {@link Vm.pause}. */
  async resume(): Promise<void> {
    await this.#api.POST("/v1/vms/{id}/resume", this.#self);
  }

  /** Ends its machine. Its disk is kept. */
  async stop(): Promise<void> {
    await this.#api.POST("/v1/vms/{id}/stop", this.#self);
  }

  /** Starts it after {@link Vm.stop}. */
  async start(): Promise<void> {
    await this.#api.POST("/v1/vms/{id}/start", this.#self);
  }

  /** Deletes it with its disk. */
  async delete(): Promise<void> {
    await this.#api.DELETE("/v1/vms/{id}", this.#self);
  }

  /** Deletes it at the end of the block that said `await using`, unless it is gone already. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete();
    } catch (error) {
      if (!(error instanceof RdsError && error.status === 404)) throw error;
    }
  }

  get #api() {
    return this.#client.api;
  }

  get #self() {
    return { params: { path: { id: this.id } } };
  }

  #at(path: string) {
    return { params: { ...this.#self.params, query: { path } } };
  }

  async #bytes(what: "/v1/vms/{id}/files/content" | "/v1/vms/{id}/files/download", path: string): Promise<Uint8Array> {
    const request = { ...this.#at(path), parseAs: "arrayBuffer" } as const;
    return new Uint8Array(await data<ArrayBuffer>(this.#api.GET(what, request)));
  }

  #run(how: "/v1/vms/{id}/run-ts" | "/v1/vms/{id}/run-js", script: Script, { env, signal, ...options }: RunOptions) {
    const what = typeof script === "string" ? { code: script } : script;
    const body = { ...what, ...options, ...(env && { env: pairs(env) }) };
    return data(this.#api.POST(how, { ...this.#self, body, ...(signal && { signal }) }));
  }
}

/** What a call that is no stream says of a VM that it lost. */
function lost(message: string): RdsError {
  return new RdsError(502, { code: "bad_gateway", message });
}

/** A body of bytes. The types know only text. */
function binary(content: string | Uint8Array) {
  return {
    body: content as string,
    bodySerializer: (body: string) => body,
    headers: { "content-type": "application/octet-stream" },
  };
}
