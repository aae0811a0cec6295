
// Deno: what the modules print must not get among the messages.
{
  const { exit, stdin, stdout, stderr } = Deno;
  const writeSync = stdout.writeSync.bind(stdout);
  stdout.write = stderr.write.bind(stderr);
  stdout.writeSync = stderr.writeSync.bind(stderr);
  // Not the stream of `stderr`: whoever is done with this one closes it.
  const writable = new WritableStream({ write: (bytes) => void stderr.writeSync(bytes) });
  Object.defineProperty(stdout, "writable", { value: writable });
  // All that Deno's console writes to stdout. Its methods call each other's originals, so each is replaced.
  const printing = ["log", "info", "debug", "dir", "dirxml", "table", "group", "groupCollapsed", "count", "timeLog", "timeEnd"];
  for (const name of printing) console[name] = console.error;
  console.clear = () => {};
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    console.error(event.reason);
  });

  const write = (bytes) => {
    try {
      for (let start = 0; start < bytes.length; ) start += writeSync(bytes.subarray(start));
    } catch {
      exit(1); // without answers, calls would wait for nothing
    }
  };
  const load = (path) => import(new URL(`file://${path.split("/").map(encodeURIComponent).join("/")}`).href);
  const receive = serve(load, write);
  const buffer = new Uint8Array(64 * 1024);
  const read = stdin.read.bind(stdin);
  for (let count; (count = await read(buffer)) !== null; ) receive(buffer.subarray(0, count));
}
