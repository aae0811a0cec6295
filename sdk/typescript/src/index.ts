export { Client, type ClientOptions, type CreateOptions } from "./client.ts";
export { RdsError } from "./error.ts";
export { type ExecEvent, type ExecOptions, type ExecResult, type ForkOptions, type RunOptions, type Script, Vm } from "./vm.ts";
export type { Schemas, Variables } from "./wire.ts";
