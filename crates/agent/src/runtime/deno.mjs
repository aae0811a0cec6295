// Deno: `--preload`ed before the program.
{
  const file = Deno.env.get("RDS_RESULT");
  Deno.env.delete("RDS_RESULT");
  const writeTextFileSync = Deno.writeTextFileSync;
  const { error } = defineResult((text) => writeTextFileSync(file, text, { create: false }));
  // Deno prints it and exits with 1, as it would without a listener.
  globalThis.addEventListener("error", (event) => error(event.error ?? event.message));
  globalThis.addEventListener("unhandledrejection", (event) => error(event.reason));
}
