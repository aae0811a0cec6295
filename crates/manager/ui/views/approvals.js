import { at, get, send } from "../api.js";
import { button, h, table } from "../dom.js";
import { json, short, time } from "../format.js";

export const seconds = 2;

/** @param {() => void} again */
export async function draw(again) {
  const calls = await get("/v1/peers/approvals");
  return [
    h("h1", {}, "Calls that wait for approval"),
    h("p", { class: "dim" }, "A link's policy can ask that a person agrees to each call. A call waits until its time is over."),
    table(
      ["Since", "Consumer", "Call", "Arguments", ""],
      calls.map((/** @type {any} */ call) => [
        time(call.requestedAt),
        h("a", { href: `#/vms/${call.consumer}` }, short(call.consumer)),
        h("code", {}, `${call.alias}: ${call.module} ${call.export}`),
        json(call.args),
        h("span", {}, decide(call, "approve", "Approve", again), decide(call, "deny", "Deny", again)),
      ]),
      "None.",
    ),
  ];
}

/** @param {any} call @param {string} verb @param {string} label @param {() => void} again */
const decide = (call, verb, label, again) =>
  button(label, async () => {
    await send("POST", `${at`/v1/peers/approvals/${call.id}`}/${verb}`);
    again();
  }, { class: verb === "deny" ? "danger" : "first" });
