// Writes the types of the API, of its OpenAPI document, to standard output. The errors, which are the same everywhere, are told
// once for each operation.

import { readFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";

const document = JSON.parse(await readFile(new URL("../../docs/openapi.json", import.meta.url), "utf8"));
for (const path of Object.values(document.paths)) {
  for (const { responses = {} } of Object.values(path)) {
    for (const status of Object.keys(responses)) {
      if (status < "400") continue;
      responses.default = responses[status];
      delete responses[status];
    }
    if (responses.default) responses.default.description = "An error";
  }
}
console.log("// Made of docs/openapi.json by `npm run types`.\n");
console.log(astToString(await openapiTS(document, { defaultNonNullable: false })).trimEnd());
