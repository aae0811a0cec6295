
// Node.js: what the modules print must not get among the messages.
import fs from "node:fs";
import { Console } from "node:console";
import { Socket } from "node:net";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";

{
  const { writeSync } = fs;
  const { exit } = process;
  const clock = new Int32Array(new SharedArrayBuffer(4));
  Object.defineProperty(process, "stdout", { value: process.stderr, configurable: true, enumerable: true });
  globalThis.console = new Console(process.stderr, process.stderr);
  process.on("unhandledRejection", (error) => console.error(error));

  const write = (bytes) => {
    for (let start = 0; start < bytes.length; ) {
      try {
        start += writeSync(1, bytes, start);
      } catch (error) {
        // A module that makes a socket or stream of the pipe makes it one that does not wait.
        if (error.code === "EAGAIN") Atomics.wait(clock, 0, 0, 1);
        else exit(1); // without answers, calls would wait for nothing
      }
    }
  };
  const receive = serve((path) => import(pathToFileURL(path).href), write);
  // Not process.stdin: a stream's events take longer than most calls.
  const callback = (count, buffer) => {
    receive(buffer.subarray(0, count));
    return true;
  };
  // A module that imports node:process looks at process.stdin, and two that read one pipe are an error.
  Object.defineProperty(process, "stdin", { value: Readable.from([]), configurable: true, enumerable: true });
  new Socket({ fd: 0, writable: false, onread: { buffer: Buffer.alloc(64 * 1024), callback } }).resume();
}
