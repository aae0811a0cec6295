/** How a call is made. */
export interface CallOptions {
  /** Time limit in milliseconds, at most 120000 (default 30000). */
  timeoutMs?: number;
  /** Aborting it cancels the call. */
  signal?: AbortSignal;
}

/** A peer's function threw this, or the call was refused: then `code` and `status` tell why. */
export class PeerError extends Error {
  /** HTTP status of the refusal; 502 if the function threw. */
  readonly status: number;
  /** A stable word for the kind of refusal. */
  readonly code: string | undefined;
}

/** Calls an export of a peer and gives what it returned. */
export function call<Result = unknown>(
  alias: string,
  modulePath: string,
  exportName: string,
  args?: readonly unknown[],
  options?: CallOptions,
): Promise<Result>;
