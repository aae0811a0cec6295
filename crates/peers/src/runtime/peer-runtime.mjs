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
  const body = JSON.stringify({ alias, modulePath, exportName, args: given, timeoutMs }, bigintAsString);
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
const readBridge = async () => JSON.parse(await read(BRIDGE));
const send = (body, signal) => {
  const headers = { "content-type": "application/json", authorization: `Bearer ${bridge.token}` };
  return post(bridge.url, headers, body, signal);
};

const bigintAsString = (_key, value) => (typeof value === "bigint" ? value.toString() : value);

function parse(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

const read = deno ? (url) => deno.readTextFile(url) : async (url) => (await import("node:fs")).readFileSync(url, "utf8");

const post = deno ? postWithFetch : postWithHttp;

async function postWithFetch(url, headers, body, signal) {
  const response = await fetch(url, { method: "POST", headers, body, signal });
  return { status: response.status, text: await response.text() };
}

// Node's fetch takes longer to load than a call takes. Connections are kept for less long than the agent keeps them.
const IDLE_MS = 15_000;
let http, agent;

async function postWithHttp(url, headers, body, signal) {
  http ??= await import("node:http");
  agent ??= new http.Agent({ keepAlive: true, timeout: IDLE_MS });
  return await new Promise((resolve, reject) => {
    const length = Buffer.byteLength(body);
    const request = http.request(url, { method: "POST", headers: { ...headers, "content-length": length }, agent, signal });
    request.on("error", (error) => reject(signal?.aborted ? signal.reason : error));
    request.on("response", (response) => {
      const pieces = [];
      response.on("data", (piece) => pieces.push(piece));
      response.on("end", () => resolve({ status: response.statusCode, text: Buffer.concat(pieces).toString() }));
      response.on("error", (error) => reject(signal?.aborted ? signal.reason : error));
    });
    request.end(body);
  });
}
