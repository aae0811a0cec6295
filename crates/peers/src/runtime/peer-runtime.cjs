// The runtime of CommonJS proxies; peer-runtime.mjs does the work.
"use strict";
let runtime;
exports.call = async (...args) => {
  runtime ??= await import("./peer-runtime.mjs");
  return runtime.call(...args);
};
