import { get } from "../api.js";
import { h } from "../dom.js";
import { size } from "../format.js";
import { rows } from "./activity.js";

export const events = [""];
export const seconds = 10;

export async function draw() {
  const [{ counts, cpu, memory, storage }, recent] = await Promise.all([
    get("/v1/admin/overview"),
    get("/v1/admin/activity?limit=10"),
  ]);
  return [
    h("h1", {}, "Overview"),
    h("div", { class: "cards" },
      card("Active VMs", counts.activeVms),
      card("Snapshots", counts.snapshots),
      card("Processors", `${Math.round(cpu.usagePct * 100)} %`, `${cpu.usedCores.toFixed(1)} of ${cpu.capacityCores}`),
      card("Memory", size(memory.usedBytes), `of ${size(memory.capacityBytes)}`),
      card("Storage", size(storage.usedBytes), `of ${size(storage.capacityBytes)}`),
    ),
    h("h2", {}, "What happened last"),
    rows(recent),
  ];
}

/** @param {string} title @param {import("../dom.js").Child} value @param {string} [more] */
const card = (title, value, more) =>
  h("div", { class: "card" }, h("span", { class: "dim" }, title), h("b", {}, value), more && h("span", { class: "dim" }, more));
