import { order } from "./sdk/shop.mjs";

const placed = order(["apple", "coffee"], Number(process.argv[2] ?? "1"));
console.log(`JavaScript on Node.js ${process.version} ordered ${placed.items} items`);
result.set({ runtime: `node ${process.version}`, ...placed });
