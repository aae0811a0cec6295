// Node.js: `--require`d before the program.
{
  const fs = require("node:fs");
  const Module = require("node:module");
  const { RDS_RESULT: file, RDS_SCRIPT: script } = process.env;
  delete process.env.RDS_RESULT;
  delete process.env.RDS_SCRIPT;

  const writeFileSync = fs.writeFileSync;
  const { keepUncaught } = defineResult((text) => writeFileSync(file, text));
  // Node.js prints it and exits with 1, as it would without a listener. It calls this for rejections too.
  process.on("uncaughtExceptionMonitor", (error) => {
    const caught = process.listenerCount("uncaughtException") > 0 || process.hasUncaughtExceptionCaptureCallback();
    if (!caught) keepUncaught(error);
  });

  if (script !== undefined) {
    // An inline program may `require` even where its `await` made it a module.
    Object.defineProperty(globalThis, "require", {
      value: Module.createRequire("/workspace/"),
      writable: true,
      configurable: true,
    });
    // Without a package.json Node.js finds out by itself what kind of module a program is.
    if (fs.existsSync("/workspace/package.json")) decideByItsText(script);
  }

  /** An inline program is what its text says, not what the package that happens to lie around it says. */
  function decideByItsText(path) {
    const { pathToFileURL } = require("node:url");
    const { Script } = require("node:vm");
    const url = pathToFileURL(path).href;
    const source = fs.readFileSync(path, "utf8");
    const commonJs = isCommonJs(source, Script);
    // Without a source, CommonJS is loaded by what is registered for the extension.
    const loaded = { format: commonJs ? "commonjs" : "module", source: commonJs ? null : source, shortCircuit: true };
    Module.registerHooks({
      load: (target, context, nextLoad) => (target === url ? loaded : nextLoad(target, context)),
    });
    const load = Module._extensions[".js"];
    Module._extensions[".js"] = (module, filename) =>
      commonJs && filename === path ? module._compile(source, filename, "commonjs") : load(module, filename);
  }

  function isCommonJs(source, Script) {
    try {
      new Script(Module.wrap(source));
      return true;
    } catch {
      return false;
    }
  }
}
