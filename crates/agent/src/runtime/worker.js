
/** Largest message to the agent in bytes; it reads no more. */
const MESSAGE_BYTES = 4 * 1024 * 1024;

/** Arrays and objects within each other of a result; the server takes no deeper ones. */
const DEEPEST = 64;

/** Milliseconds that a module may take to load before the next one is loaded beside it. */
const PATIENCE = 10_000;

/** Characters of an error's name and of its message: both together are less than a message, whatever they are. */
const ERROR_LENGTH = 256 * 1024;

/** Characters of the reason why an export can't be called. */
const REASON_LENGTH = 4 * 1024;

/**
 * Serves calls of offered exports. A message is four bytes of length, big-endian, and JSON.
 *
 * `load` gives a module's namespace, `write` writes bytes before it returns. Gives what takes the bytes that come.
 */
function serve(load, write) {
  const offered = new Map();
  const loaded = new Map();
  const cancelled = new Set();
  const running = new Set();
  const { setTimeout } = globalThis;

  const encoder = new TextEncoder();
  const decoder = new TextDecoder();

  const send = (message) => write(framed(JSON.stringify(message)));

  const framed = (json) => {
    const text = encoder.encode(json);
    const frame = new Uint8Array(4 + text.length);
    new DataView(frame.buffer).setUint32(0, text.length);
    frame.set(text, 4);
    return frame;
  };

  /** An export, as the module itself has it: nothing inherited can be called. */
  const lookUp = (module, name) => {
    if (Object.hasOwn(module, name)) return module[name];
    // CommonJS whose exports can't be told from its text.
    const exports = Object.hasOwn(module, "module.exports") ? module["module.exports"] : undefined;
    return exports != null && Object.hasOwn(exports, name) ? exports[name] : undefined;
  };

  const offer = async ({ modules }) => {
    for (const { path, exports } of modules) offered.set(path, new Set(exports));
    // One after the other: modules that share others may fail to load at the same time. But one that hangs does not keep
    // those behind it from being called.
    for (const { path, exports } of modules) await settledOrLate(loadOffered(path, exports));
  };

  const loadOffered = async (path, exports) => {
    let module, failure;
    try {
      module = await load(path);
      loaded.set(path, module);
    } catch (error) {
      failure = `it can't be loaded: ${describe(error, REASON_LENGTH).message}`;
    }
    const uncallable = [];
    for (const name of exports) {
      const reason = failure ?? problem(module, name);
      if (reason === undefined) continue;
      uncallable.push({ path, export: name, reason });
      // The others may have the same, and together be more than a message.
      break;
    }
    send({ type: "loaded", path, uncallable });
  };

  const settledOrLate = (loading) => {
    const late = new Promise((next) => setTimeout(next, PATIENCE));
    return Promise.race([loading, late]);
  };

  const problem = (module, name) => {
    try {
      const kind = typeof lookUp(module, name);
      return kind === "function" ? undefined : kind === "undefined" ? "there is no such export" : `it is of type ${kind}`;
    } catch (error) {
      return describe(error, REASON_LENGTH).message;
    }
  };

  const call = async ({ id, module, export: name, args }) => {
    let reply;
    running.add(id);
    try {
      if (!offered.get(module)?.has(name)) throw new TypeError("the export was not offered");
      const callable = lookUp(loaded.get(module) ?? (await load(module)), name);
      if (typeof callable !== "function") throw new TypeError(`${name} is not callable`);
      const value = jsonText(await callable(...args), DEEPEST);
      reply = framed(`{"type":"result","id":${id},"value":${value}}`);
      if (reply.length > MESSAGE_BYTES) throw new RangeError(`the result is larger than ${MESSAGE_BYTES} bytes`);
    } catch (error) {
      reply = framed(JSON.stringify({ type: "error", id, ...describe(error, ERROR_LENGTH) }));
    }
    running.delete(id);
    if (!cancelled.delete(id)) write(reply);
  };

  const receive = (message) => {
    if (message.type === "offer") offer(message);
    if (message.type === "call") call(message);
    if (message.type === "cancel") {
      if (running.has(message.id)) cancelled.add(message.id);
      // Says that the program is not stuck.
      send({ type: "cancelled", id: message.id });
    }
  };

  let pending = new Uint8Array(0);
  return (piece) => {
    const bytes = new Uint8Array(pending.length + piece.length);
    bytes.set(pending);
    bytes.set(piece, pending.length);
    const messages = [];
    let start = 0;
    while (bytes.length - start >= 4) {
      const length = new DataView(bytes.buffer).getUint32(start);
      if (bytes.length - start - 4 < length) break;
      messages.push(JSON.parse(decoder.decode(bytes.subarray(start + 4, start + 4 + length))));
      start += 4 + length;
    }
    pending = bytes.subarray(start);
    // A call that was given up while the program was busy is not begun: what it does would be done behind everybody's back.
    const givenUp = new Set(messages.filter(({ type }) => type === "cancel").map(({ id }) => id));
    for (const message of messages) {
      if (message.type !== "call" || !givenUp.has(message.id)) receive(message);
    }
  };
}

/**
 * Name and message of whatever was thrown. One that is too long is left out and not cut: of a secret that is cut in two, the
 * server would not know the half.
 */
function describe(error, longest) {
  const text = (value) => {
    const whole = String(value).toWellFormed();
    return whole.length > longest ? `[left out: ${whole.length} characters]` : whole;
  };
  try {
    if (error instanceof Error) return { name: text(error.name), message: text(error.message) };
    return { name: "Error", message: text(typeof error === "string" ? error : JSON.stringify(jsonValue(error))) };
  } catch {
    return { name: "Error", message: "an error that has no text" };
  }
}
