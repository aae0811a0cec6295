// How values are shown.

import { h } from "./dom.js";

/** @param {string | null | undefined} time in ISO 8601 */
export const time = (time) => time && h("time", { datetime: time, title: time }, new Date(time).toLocaleString());

/** @param {number | null | undefined} bytes */
export function size(bytes) {
  if (bytes == null) return null;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${value.toFixed(step === 0 || value >= 100 ? 0 : 1)} ${units[step]}`;
}

/** @param {number | null | undefined} value in milliseconds */
export const milliseconds = (value) => (value == null ? null : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);

/** The beginning of an id, with all of it as its tip.
 * @param {string | null | undefined} id
 */
export const short = (id) => id && h("code", { title: id }, id.slice(0, 8));

const COLOURS = /** @type {Record<string, string>} */ ({
  RUNNING: "good", ready: "good", returned: "good", delivered: "good",
  ERROR: "bad", error: "bad", failed: "bad", refused: "bad", threw: "bad", timed_out: "bad",
});
const REST = new Set(["STOPPED", "PAUSED", "none", "cancelled"]);

/** A word for a state, in its colour.
 * @param {string} state
 */
export const state = (state) => h("span", { class: COLOURS[state] ?? (REST.has(state) ? "dim" : "wait") }, state);

/** @param {unknown} value */
export const json = (value) => h("pre", {}, JSON.stringify(value, null, 2));
