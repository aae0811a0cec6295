import type { components } from "./schema.ts";

/** The bodies of the API by their names in its OpenAPI document. */
export type Schemas = components["schemas"];

/** Names and values, as a program sees them in its environment. */
export type Variables = Record<string, string>;

/** The body of a reply. It is there: a reply without success was thrown. */
export async function data<T>(reply: Promise<{ data?: T }>): Promise<T> {
  return (await reply).data as T;
}

/** Variables as most of the API takes them. An error shows none: what is meant for a name may be a value. */
export function pairs(variables: Variables): string[] {
  if (Object.keys(variables).some((name) => name.includes("="))) throw new TypeError("the name of a variable has a =");
  return Object.entries(variables).map(([name, value]) => `${name}=${value}`);
}
