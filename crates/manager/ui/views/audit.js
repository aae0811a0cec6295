import { get } from "../api.js";
import { button, choice, field, form, h, table } from "../dom.js";
import { milliseconds, short, size, state, time } from "../format.js";

const OUTCOMES = ["returned", "threw", "refused", "timed_out", "cancelled", "failed"];

/** What is looked for. It stays while the page is open. */
let filter = new URLSearchParams();

/** @param {() => void} again */
export async function draw(again) {
  const { entries, hasMore } = await page();
  const body = h("div", {});
  const older = button("Older", async () => {
    const next = await page(entries.at(-1)?.sequence);
    entries.push(...next.entries);
    show(next.hasMore);
  });
  const show = (/** @type {boolean} */ more) => body.replaceChildren(rows(entries), more ? older : "");
  show(hasMore);
  const fields = [
    field("Consumer", "consumer", { value: filter.get("consumer") }),
    field("Provider", "provider", { value: filter.get("provider") }),
    field("Alias", "alias", { value: filter.get("alias") }),
    field("Export", "export", { value: filter.get("export") }),
    choice("Outcome", "outcome", [["", "all"], ...OUTCOMES.map((name) => /** @type {[string, string]} */ ([name, name]))], filter.get("outcome")),
  ];
  const search = form(fields, "Search", (values) => {
    filter = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "").map(([key, value]) => [key, String(value)]));
    again();
  });
  const all = `/v1/audit?${new URLSearchParams([...filter, ["format", "jsonl"]])}`;
  return [h("h1", {}, "Calls between VMs"), search, h("p", {}, h("a", { href: all, download: "audit.jsonl" }, "All of these as JSON lines")), body];
}

/** @param {number} [before] */
const page = (before) => get(`/v1/audit?${new URLSearchParams([...filter, ["limit", "100"], ...(before !== undefined ? [["before", String(before)]] : [])])}`);

/** @param {any[]} entries */
const rows = (entries) =>
  table(
    ["Number", "When", "Consumer", "Provider", "Call", "Outcome", "Took", "Sent", "Received", "Strikes"],
    entries.map((entry) => [
      entry.sequence,
      time(entry.time),
      short(entry.consumer),
      short(entry.provider),
      h("code", {}, `${entry.alias}: ${entry.module} ${entry.export}`),
      h("span", {}, state(entry.outcome), entry.rule ? ` ${entry.rule}` : ""),
      milliseconds(entry.durationUs / 1000),
      size(entry.argsBytes),
      size(entry.resultBytes),
      entry.strikes || "",
    ]),
    "No call.",
  );
