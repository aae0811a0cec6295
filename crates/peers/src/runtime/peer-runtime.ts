// The runtime of TypeScript proxies; peer-runtime.mjs does the work.
export { call, PeerError } from "./peer-runtime.mjs";
export type { CallOptions } from "./peer-runtime.mjs";
