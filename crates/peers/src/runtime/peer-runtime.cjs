// The runtime of CommonJS proxies; peer-runtime.mjs does the work.
"use strict";
exports.call = async (...args) => (await import("./peer-runtime.mjs")).call(...args);
