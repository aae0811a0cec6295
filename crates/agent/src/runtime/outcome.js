// The global `result`, for either runtime; the part behind this one says how it is written down and what is uncaught.

/** Largest outcome in bytes of JSON; the agent reads no more. */
const OUTCOME_BYTES = 4 * 1024 * 1024;

/** What the program leaves: `result` and `error`, each a JSON value, each only if it was given. */
const outcome = {};

/** What is kept of something that was thrown. */
function errorValue(error) {
  if (error instanceof Error) {
    const { name, message, stack } = error;
    return jsonValue({ name: String(name), message: String(message), stack: stack && String(stack) });
  }
  if (typeof error === "object" && error !== null && !Array.isArray(error)) return jsonValue(error);
  return { name: "Error", message: typeof error === "string" ? error : String(JSON.stringify(jsonValue(error))) };
}

/** Defines the global. `write` puts a text in place of the last one, before it returns. */
function defineResult(write) {
  const keep = (part, value) => {
    const text = JSON.stringify({ ...outcome, [part]: value });
    const bytes = new TextEncoder().encode(text).length;
    if (bytes > OUTCOME_BYTES) {
      throw new RangeError(`result: ${bytes} bytes of JSON are more than the ${OUTCOME_BYTES} that are kept`);
    }
    outcome[part] = value;
    write(text);
  };
  const result = Object.freeze({
    set: (value) => keep("result", jsonValue(value)),
    error: (error) => keep("error", errorValue(error)),
  });
  Object.defineProperty(globalThis, "result", { value: result, writable: true, configurable: true });
  return { keepUncaught };

  /** Keeps what the program did not catch. Returns what takes it back, should it turn out to be caught after all. */
  function keepUncaught(error) {
    const before = outcome.error;
    try {
      result.error(error);
    } catch {
      // Whatever it is, it can't be written down; the runtime prints it as well as it can.
      keep("error", { name: "Error", message: "an uncaught error that has no JSON" });
    }
    return () => keep("error", before);
  }
}

