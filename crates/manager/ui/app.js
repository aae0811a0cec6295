// The administration page: which view is open, and when it is drawn again.

import { get, send } from "./api.js";
import { h, tell, words } from "./dom.js";
import * as activity from "./views/activity.js";
import * as approvals from "./views/approvals.js";
import * as audit from "./views/audit.js";
import * as images from "./views/images.js";
import * as keys from "./views/keys.js";
import * as overview from "./views/overview.js";
import * as snapshots from "./views/snapshots.js";
import * as vms from "./views/vms.js";
import * as webhooks from "./views/webhooks.js";

/**
 * A view makes its content, of all or of what the `parts` of the address name. It is drawn again after an event of a type
 * that begins with one of `events`, and every `seconds` where they are given.
 *
 * @typedef {{ draw: (again: () => void, ...parts: string[]) => Promise<Node[]>, events?: string[], seconds?: number }} View
 */

/** @type {[string, string, View][]} */
const VIEWS = [
  ["", "Overview", overview],
  ["vms", "VMs", vms],
  ["images", "Images", images],
  ["snapshots", "Snapshots", snapshots],
  ["approvals", "Approvals", approvals],
  ["audit", "Audit", audit],
  ["keys", "API keys", keys],
  ["webhooks", "Webhooks", webhooks],
  ["activity", "Activity", activity],
];

const main = /** @type {HTMLElement} */ (document.getElementById("view"));
const nav = /** @type {HTMLElement} */ (document.getElementById("nav"));

/** @type {View} */
let open = overview;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let drawn = 0;

async function draw() {
  const [name, ...parts] = location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
  const view = VIEWS.find(([path]) => path === name)?.[2] ?? overview;
  const mine = ++drawn;
  clearTimeout(timer);
  open = view;
  let content;
  try {
    content = await view.draw(draw, ...parts);
  } catch (error) {
    content = [h("p", { class: "fault", role: "alert" }, words(error))];
  }
  // Another view, or a newer state of this one, was asked for in the meantime.
  if (mine !== drawn) return;
  const link = (/** @type {string} */ path, /** @type {string} */ title) =>
    h("a", { href: `#/${path}`, "aria-current": path === name && "page" }, title);
  nav.replaceChildren(...VIEWS.map(([path, title]) => link(path, title)));
  main.replaceChildren(...content);
  if (view.seconds) timer = setTimeout(redraw, view.seconds * 1000);
}

/** Draws what is open once more, unless somebody writes in it, or it shows what it would not show again. */
function redraw() {
  clearTimeout(timer);
  const busy = main.querySelector("details[open], [data-keep]:not(:empty)") || main.contains(document.activeElement);
  if (busy) timer = setTimeout(redraw, 1000);
  else draw();
}

function listen() {
  const events = new EventSource("/v1/admin/events");
  events.addEventListener("activity", ({ data }) => {
    const { type } = JSON.parse(data);
    if (!open.events?.some((begin) => type.startsWith(begin))) return;
    clearTimeout(timer);
    timer = setTimeout(redraw, 200);
  });
}

document.getElementById("sign-out")?.addEventListener("click", async () => {
  await send("POST", "/auth/logout");
  location.assign("/login/");
});
addEventListener("hashchange", () => {
  tell("");
  draw();
});

await get("/auth/me");
listen();
await draw();
