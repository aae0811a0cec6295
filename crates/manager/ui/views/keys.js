import { at, get, send } from "../api.js";
import { button, field, form, h, table } from "../dom.js";
import { time } from "../format.js";

export const events = ["apikey."];

/** @param {() => void} again */
export async function draw(again) {
  const keys = await get("/v1/admin/api-keys");
  const made = h("div", { "data-keep": true });
  const create = form(
    [field("Name", "name", { required: true }), field("Ends", "ends", { type: "datetime-local" })],
    "Create",
    async ({ name, ends }) => {
      const { apiKey } = await send("POST", "/v1/admin/api-keys", { name, ...(ends && { expiresAt: new Date(ends).toISOString() }) });
      made.replaceChildren(h("p", { class: "secret" }, "The key, shown this once: ", h("code", {}, apiKey), " ", button("Done", again)));
    },
  );
  return [
    h("h1", {}, "API keys"),
    table(
      ["Name", "Begins with", "Made", "Last used", "Ends", ""],
      keys.map((/** @type {any} */ key) => [
        key.name,
        h("code", {}, key.prefix),
        time(key.createdAt),
        time(key.lastUsedAt) ?? "never",
        key.revokedAt ? h("span", { class: "bad" }, "revoked ", time(key.revokedAt)) : time(key.expiresAt) ?? "never",
        !key.revokedAt && button("Revoke", async () => {
          await send("POST", at`/v1/admin/api-keys/${key.id}/revoke`);
          again();
        }, { class: "danger", ask: `Revoke ${key.name}? Programs that use it stop working.` }),
      ]),
    ),
    made,
    h("h2", {}, "New key"),
    create,
  ];
}
