import type { Schemas } from "./wire.ts";

/** The server's refusal of a request, or the news that it failed. */
export class RdsError extends Error {
  override readonly name = "RdsError";
  /** The HTTP status. */
  readonly status: number;
  /** For programs; stable, such as `not_found`. */
  readonly code: string;
  /** Finds the request in the server's log. */
  readonly requestId: string | undefined;

  constructor(status: number, { message, code, requestId }: Schemas["ErrorBody"]) {
    super(message);
    this.status = status;
    this.code = code;
    this.requestId = requestId ?? undefined;
  }

  /** What a reply that is no success says. Whatever stands between here and the server may have answered in its own way. */
  static async of(response: Response): Promise<RdsError> {
    const { status, statusText, headers } = response;
    const body = await response.json().catch(() => undefined);
    const { message, code } = body ?? {};
    const said = typeof message === "string" && typeof code === "string";
    return new RdsError(status, {
      message: said ? message : `${status} ${statusText}`,
      code: said ? code : "unknown",
      requestId: headers.get("x-request-id"),
    });
  }
}
