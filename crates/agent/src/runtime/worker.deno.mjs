
// Deno: what the modules print must not get among the messages.
{
  const { exit, stdin, stdout, stderr } = Deno;
  const writeSync = stdout.writeSync.bind(stdout);
  stdout.write = stderr.write.bind(stderr);
  stdout.writeSync = stderr.writeSync.bind(stderr);
  for (const name of ["log", "info", "debug", "dir", "table", "group"]) console[name] = console.error;
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
