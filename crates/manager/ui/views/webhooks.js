import { at, get, send } from "../api.js";
import { button, field, form, h, lines, split, table, tell } from "../dom.js";
import { milliseconds, state, time } from "../format.js";

export const events = ["webhook."];

/** @param {() => void} again @param {string} [id] */
export async function draw(again, id) {
  const webhooks = await get("/v1/admin/webhooks");
  if (id) return log(webhooks.find((/** @type {any} */ webhook) => webhook.id === id), await get(at`/v1/admin/webhooks/${id}/deliveries`));
  const made = h("div", { "data-keep": true });
  const create = form(
    [
      field("Name", "name", { required: true }),
      field("URL", "url", { type: "url", required: true, placeholder: "https://example.com/hooks/rds" }),
      lines("Events, one a line", "eventTypes", "vm.*"),
    ],
    "Create",
    async ({ name, url, eventTypes }) => {
      const { secret } = await send("POST", "/v1/admin/webhooks", { name, url, eventTypes: split(eventTypes) });
      made.replaceChildren(
        h("p", { class: "secret" }, "What deliveries are signed with, shown this once: ", h("code", {}, secret), " ", button("Done", again)),
      );
    },
  );
  return [
    h("h1", {}, "Webhooks"),
    table(
      ["Name", "URL", "Events", "Made", ""],
      webhooks.map((/** @type {any} */ webhook) => [
        h("a", { href: `#/webhooks/${webhook.id}` }, webhook.name),
        webhook.url,
        webhook.eventTypes.join(", "),
        time(webhook.createdAt),
        h("span", {}, manage(webhook, again)),
      ]),
    ),
    made,
    h("h2", {}, "New webhook"),
    create,
  ];
}

/** @param {any} webhook @param {() => void} again */
function manage({ id, name, enabled }, again) {
  const path = at`/v1/admin/webhooks/${id}`;
  return [
    enabled && button("Test", async () => {
      await send("POST", `${path}/test`);
      tell(`A delivery for a test was sent to ${name}; its log says how that went.`);
    }),
    button(enabled ? "Disable" : "Enable", async () => {
      await send("PATCH", path, { enabled: !enabled });
      again();
    }),
    button("Delete", async () => {
      await send("DELETE", path);
      again();
    }, { class: "danger", ask: `Delete ${name}? What waits for it is never sent.` }),
  ];
}

/** @param {any} webhook @param {any[]} deliveries */
const log = (webhook, deliveries) => [
  h("h1", {}, `Deliveries to ${webhook?.name ?? "a webhook that is gone"}`),
  table(
    ["When", "Event", "State", "Attempts", "Last attempt", "Took", "Answer", "Next attempt"],
    deliveries.map((delivery) => [
      time(delivery.createdAt),
      h("code", {}, delivery.event),
      state(delivery.state),
      delivery.attempts,
      time(delivery.lastAttemptAt),
      milliseconds(delivery.durationMs),
      [delivery.status, delivery.error].filter(Boolean).join(" "),
      time(delivery.nextAttemptAt),
    ]),
    "Nothing was sent yet.",
  ),
];
