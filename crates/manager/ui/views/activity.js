import { get } from "../api.js";
import { h, table } from "../dom.js";
import { time } from "../format.js";

export const events = [""];

export async function draw() {
  return [h("h1", {}, "Activity"), rows(await get("/v1/admin/activity?limit=200"))];
}

/** @param {any[]} events newest first */
export const rows = (events) =>
  table(["When", "Event", "What"], events.map((event) => [time(event.createdAt), h("code", {}, event.type), what(event)]));

/** @param {any} event */
const what = ({ entityType, entityId, message }) =>
  entityType === "vm" && entityId ? h("a", { href: `#/vms/${encodeURIComponent(entityId)}` }, message) : message;
