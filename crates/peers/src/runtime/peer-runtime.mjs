// @ts-self-types="./peer-runtime.d.mts"
// Carries calls of peers' proxies to the manager: one HTTP request each to this VM's agent, on loopback. Node.js and Deno.
// In Deno, the program needs --allow-net for the address in peer-bridge.json and --allow-read for this directory.

const BRIDGE = new URL("peer-bridge.json", import.meta.url);
const deno = globalThis.Deno;

/** A peer's function threw this, or the call was refused: then `code` and `status` tell why. */
export class PeerError extends Error {
  constructor(status, { message, name, code }) {
    super(typeof message === "string" ? message : `the call failed with status ${status}`);
    const own = (key, value) => Object.defineProperty(this, key, { value, configurable: true, writable: true });
    own("name", typeof name === "string" ? name : "PeerError");
    own("status", status);
    own("code", code);
  }
}

/**
 * Calls an export of a peer and gives what it returned.
 *
 * `options.timeoutMs` is at most 120000 (default 30000); aborting `options.signal` cancels the call. It is sent once:
 * when the connection breaks, nobody knows whether the provider acted, and the call fails.
 */
export async function call(alias, modulePath, exportName, args = [], options = {}) {
  const { timeoutMs, signal } = options;
  signal?.throwIfAborted();
  const given = [...args];
  while (given.length > 0 && given.at(-1) === undefined) given.pop();
  const body = toJson({ alias, modulePath, exportName, args: given, timeoutMs });
  bridge ??= await readBridge();
  let { status, text } = await send(body, signal);
  if (status === 401) {
    // The VM has a new token, and nothing was done with the old one.
    bridge = await readBridge();
    ({ status, text } = await send(body, signal));
  }
  const reply = parse(text);
  if (status !== 200) throw new PeerError(status, reply);
  return reply.result;
}

let bridge;

/** Where calls go, and how each of them begins. */
async function readBridge() {
  const { url, token } = JSON.parse(await read(BRIDGE));
  const { hostname, port, pathname } = new URL(url);
  const head =
    `POST ${pathname} HTTP/1.1\r\nhost: ${hostname}\r\nauthorization: Bearer ${token}\r\n` +
    "content-type: application/json\r\ncontent-length: ";
  return { hostname, port: Number(port), head };
}

const read = deno ? (url) => deno.readTextFile(url) : async (url) => (await import("node:fs")).readFileSync(url, "utf8");

function toJson(call) {
  try {
    return JSON.stringify(call);
  } catch {
    // Slower, so only when it is needed. A cycle fails again.
    return JSON.stringify(call, (_key, value) => (typeof value === "bigint" ? value.toString() : value));
  }
}

function parse(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

// The runtimes' own HTTP clients take longer for a call than everything else does together: under emulation, fetch takes
// 14 ms where this takes 6. The agent is the only server there will ever be, and gives every answer a content-length.

/** Connections without a call, the last used one last. They are kept for less long than the agent keeps them. */
const idle = [];
const IDLE_MS = 15_000;
const MOST_IDLE = 64;
const MOST_HEAD_BYTES = 16 * 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Sends a call once. */
async function send(body, signal) {
  const payload = encoder.encode(body);
  const head = encoder.encode(`${bridge.head}${payload.length}\r\n\r\n`);
  const connection = takeIdle() ?? (await connect(bridge.hostname, bridge.port));
  const abort = () => connection.close();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    signal?.throwIfAborted();
    await connection.write(concat(head, payload));
    const reply = await readReply(connection);
    keep(connection);
    return reply;
  } catch (error) {
    connection.close();
    throw signal?.aborted ? signal.reason : error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

function takeIdle() {
  const now = performance.now();
  while (idle.length > 0 && idle[0].since < now - IDLE_MS) idle.shift().connection.close();
  while (idle.length > 0) {
    const { connection } = idle.pop();
    if (connection.isOpen()) {
      connection.hold();
      return connection;
    }
  }
}

function keep(connection) {
  if (idle.length >= MOST_IDLE) return connection.close();
  connection.release();
  idle.push({ connection, since: performance.now() });
}

async function readReply(connection) {
  let bytes = new Uint8Array(0);
  const more = async () => {
    const piece = await connection.read();
    if (piece === null) throw new Error("the call broke off; the peer may have acted");
    bytes = bytes.length === 0 ? piece : concat(bytes, piece);
  };
  let end;
  while ((end = endOfHead(bytes)) === -1) {
    if (bytes.length > MOST_HEAD_BYTES) throw new Error("the answer to a call is no answer");
    await more();
  }
  const head = decoder.decode(bytes.subarray(0, end));
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1]);
  if (!(status >= 200 && length >= 0)) throw new Error("the answer to a call is no answer");
  while (bytes.length < end + length) await more();
  return { status, text: decoder.decode(bytes.subarray(end, end + length)) };
}

/** Where the body begins, or -1. */
function endOfHead(bytes) {
  for (let at = bytes.indexOf(13); at !== -1; at = bytes.indexOf(13, at + 1)) {
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}

function concat(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

// A connection: `write` all bytes, `read` some or null at the end, `close` it; `release` lets the program end while it is
// open, `hold` does not.
const connect = deno ? connectWithDeno : connectWithNode;

async function connectWithDeno(hostname, port) {
  const connection = await deno.connect({ hostname, port });
  connection.setNoDelay(true);
  const buffer = new Uint8Array(64 * 1024);
  let open = true;
  return {
    async write(bytes) {
      for (let sent = 0; sent < bytes.length; ) sent += await connection.write(bytes.subarray(sent));
    },
    async read() {
      const count = await connection.read(buffer);
      return count === null ? null : buffer.slice(0, count);
    },
    close() {
      if (open) connection.close();
      open = false;
    },
    isOpen: () => open,
    // What is not being read keeps no Deno program alive.
    hold() {},
    release() {},
  };
}

let net;

async function connectWithNode(host, port) {
  net ??= await import("node:net");
  const pieces = [];
  let failure, wake;
  let [open, connected] = [true, false];
  const settle = () => wake?.();
  const changed = () => new Promise((resolve) => (wake = resolve));
  const onread = {
    buffer: new Uint8Array(64 * 1024),
    callback(count, buffer) {
      pieces.push(buffer.slice(0, count));
      settle();
      return true;
    },
  };
  const socket = net.connect({ host, port, noDelay: true, onread });
  socket.on("connect", () => {
    connected = true;
    settle();
  });
  socket.on("error", (error) => (failure = error));
  socket.on("close", () => {
    open = false;
    settle();
  });
  while (open && !connected) await changed();
  if (!connected) throw failure ?? new Error("the call could not be sent");
  return {
    async write(bytes) {
      socket.write(bytes);
    },
    async read() {
      while (open && pieces.length === 0) await changed();
      if (pieces.length === 0 && failure) throw failure;
      return pieces.shift() ?? null;
    },
    close: () => socket.destroy(),
    isOpen: () => open,
    hold: () => socket.ref(),
    release: () => socket.unref(),
  };
}
