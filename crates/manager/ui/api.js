// The server's API, with the cookie of the session.

/** A refusal, in the server's words. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Sends a request and gives the JSON of its reply, or null. Where the session has ended, the page to sign in opens, and
 * this never ends.
 *
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body] sent as JSON; a `Blob` as it is
 * @returns {Promise<any>}
 */
export async function send(method, path, body) {
  const raw = body instanceof Blob;
  const type = raw ? "application/octet-stream" : "application/json";
  const content = body === undefined ? {} : { headers: { "content-type": type }, body: raw ? body : JSON.stringify(body) };
  const reply = await fetch(path, { method, ...content });
  if (reply.status === 401 && location.pathname !== "/login/") {
    location.assign("/login/");
    await new Promise(() => {});
  }
  const isJson = reply.headers.get("content-type")?.startsWith("application/json");
  const json = isJson ? await reply.json() : null;
  if (!reply.ok) throw new ApiError(reply.status, json?.message ?? `The server answered ${reply.status}`);
  return json;
}

/** @param {string} path */
export const get = (path) => send("GET", path);

/** A path with its parts encoded: `` at`/v1/vms/${id}` ``.
 * @param {TemplateStringsArray} texts
 * @param {...string} values
 */
export const at = (texts, ...values) => String.raw({ raw: texts }, ...values.map(encodeURIComponent));
