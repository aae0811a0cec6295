import { catalogue, order } from "./sdk/shop.mjs";

interface Order {
  items: number;
  total: string;
}

const times = Number(Deno.args[0] ?? "1");
const placed: Order = order(catalogue().map(({ name }) => name), times);
console.log(`TypeScript on Deno ${Deno.version.deno} ordered ${placed.items} items`);
result.set({ runtime: `deno ${Deno.version.deno}`, ...placed });
