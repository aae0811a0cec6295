
// Node.js: what the modules print must not get among the messages.
import fs from "node:fs";
import { Console } from "node:console";
import { pathToFileURL } from "node:url";

{
  const { writeSync } = fs;
  process.stdout.write = process.stderr.write.bind(process.stderr);
  globalThis.console = new Console(process.stderr, process.stderr);
  process.on("unhandledRejection", (error) => console.error(error));

  const write = (bytes) => {
    for (let start = 0; start < bytes.length; ) start += writeSync(1, bytes, start);
  };
  await serve((path) => import(pathToFileURL(path).href), write, process.stdin);
}
