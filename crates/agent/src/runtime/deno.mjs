// Deno: `--preload`ed before the program.
{
  const file = Deno.env.get("RDS_RESULT");
  Deno.env.delete("RDS_RESULT");
  const writeTextFileSync = Deno.writeTextFileSync;
  const { keepUncaught } = defineResult((text) => writeTextFileSync(file, text, { create: false }));
  // Deno prints it and exits with 1, as it would without a listener.
  globalThis.addEventListener("error", (event) => watch(event, event.error ?? event.message));
  globalThis.addEventListener("unhandledrejection", (event) => watch(event, event.reason));

  /** The program's own listeners come later, and may prevent that it ends. */
  function watch(event, error) {
    const takeBack = keepUncaught(error);
    queueMicrotask(() => event.defaultPrevented && takeBack());
  }
}
