import { at, get, send } from "../api.js";
import { button, form, h, list, table, tell } from "../dom.js";
import { json, milliseconds, short, size, state, time } from "../format.js";

/** The view of one VM.
 * @param {() => void} again
 * @param {string} id
 */
export async function draw(again, id) {
  const [vm, log, runs] = await Promise.all([
    get(at`/v1/vms/${id}`),
    get(at`/v1/vms/${id}/logs?tail=200`),
    get(at`/v1/vms/${id}/exec-logs?limit=20`),
  ]);
  const gone = () => (location.hash = "#/vms");
  return [
    h("h1", {}, vm.name ?? `VM ${id.slice(0, 8)}`, " ", state(vm.state)),
    h("div", { class: "row" }, actions(vm, again, gone), copies(vm, again)),
    vm.error && h("p", { class: "fault" }, vm.error),
    h("h2", {}, "What it is"),
    list({
      ID: h("code", {}, vm.id),
      Size: `${vm.cpu} × ${vm.memMb} MB, disk ${vm.diskSizeMb} MB`,
      Image: short(vm.imageId),
      "Started from": vm.startedFrom,
      "Start took": vm.timings && steps(vm.timings),
      Address: vm.guestIp,
      "May reach": [...vm.allowIps, ...vm.allowDomains].join(", ") || (vm.outboundInternet ? "everything" : "nothing"),
      Network: vm.network && `${vm.network.packets} packets, ${size(vm.network.bytes)}; ${vm.network.dropped} dropped`,
      Labels: Object.entries(vm.labels).map(([key, value]) => `${key}=${value}`).join(", "),
      Made: time(vm.createdAt),
      "Is deleted": time(vm.expiresAt),
      "When idle": vm.idleTimeoutSeconds && `${vm.idleAction} after ${vm.idleTimeoutSeconds} s`,
    }),
    h("h2", {}, "Links to providers"),
    links(vm, again),
    h("h2", {}, "Run a command"),
    command(vm),
    h("h2", {}, "What ran last"),
    table(["When", "What", "Input", "Took"], runs.entries.map(run), "Nothing yet."),
    h("h2", {}, "Log"),
    h("pre", {}, log.lines.join("\n")),
  ].filter((part) => part instanceof Node);
}

/**
 * What can be done with a VM in its state.
 *
 * @param {any} vm
 * @param {() => void} again
 * @param {() => void} gone after it was deleted
 */
export function actions(vm, again, gone = again) {
  const path = at`/v1/vms/${vm.id}`;
  const act = (/** @type {string} */ label, /** @type {string} */ verb) =>
    button(label, async () => {
      await send("POST", `${path}/${verb}`);
      again();
    });
  const running = vm.state === "RUNNING";
  return [
    running && act("Pause", "pause"),
    vm.state === "PAUSED" && act("Resume", "resume"),
    (running || vm.state === "PAUSED") && act("Stop", "stop"),
    (vm.state === "STOPPED" || vm.state === "ERROR") && act("Start", "start"),
    button("Delete", async () => {
      await send("DELETE", path);
      gone();
    }, { class: "danger", ask: `Delete ${vm.name ?? vm.id} with all that is on its disk?` }),
  ].filter((action) => action !== false);
}

/** @param {any} vm @param {() => void} again */
function copies(vm, again) {
  if (vm.state !== "RUNNING" && vm.state !== "PAUSED") return [];
  const path = at`/v1/vms/${vm.id}`;
  const snapshot = (/** @type {string} */ label, /** @type {unknown} */ body) =>
    button(label, async () => {
      const { id } = await send("POST", `${path}/snapshots`, body);
      tell(`Snapshot ${id} was taken.`);
    });
  return [
    snapshot("Snapshot of the disk", {}),
    snapshot("Snapshot with memory", { kind: "vm" }),
    button("Fork", async () => {
      const { vms } = await send("POST", `${path}/fork`, { count: 1 });
      again();
      location.hash = `#/vms/${vms[0].id}`;
    }),
  ];
}

/** @param {any} vm @param {() => void} again */
const links = (vm, again) =>
  table(
    ["Alias", "Provider", "Sources", "Policy", ""],
    vm.peerLinks.map((/** @type {any} */ link) => [
      h("code", {}, link.alias),
      h("a", { href: `#/vms/${link.vmId}` }, short(link.vmId)),
      link.sourceMode,
      link.policy ? json(link.policy) : "none",
      button("Unlink", async () => {
        await send("DELETE", at`/v1/vms/${vm.id}/peers/${link.alias}`);
        again();
      }, { class: "danger", ask: `Take ${link.alias} away from this VM?` }),
    ]),
  );

/** @param {any} vm */
function command(vm) {
  const output = h("div", { "data-keep": true });
  const fields = [h("label", { class: "wide" }, h("input", { name: "cmd", required: true, placeholder: "uname -a", class: "mono", autocomplete: "off" }))];
  return h("div", {}, form(fields, "Run", async ({ cmd }) => {
    output.replaceChildren(h("p", { class: "dim" }, "It runs …"));
    try {
      const { exitCode, stdout, stderr, truncated } = await send("POST", at`/v1/vms/${vm.id}/exec`, { cmd });
      output.replaceChildren(
        h("p", { class: exitCode === 0 ? "good" : "bad" }, `Exit code ${exitCode}${truncated ? ", output cut" : ""}`),
        ...[stdout, stderr].filter((text) => text !== "").map((text) => h("pre", {}, text)),
      );
    } catch (error) {
      output.replaceChildren();
      throw error;
    }
  }), output);
}

/** @param {any} entry */
const run = ({ timestamp, type, input, durationMs }) => [
  time(timestamp), type, h("code", {}, input?.cmd ?? input?.path ?? input?.code ?? JSON.stringify(input)), milliseconds(durationMs),
];

/** @param {Record<string, number | null>} timings */
function steps({ totalMs, ...parts }) {
  const told = Object.entries(parts).filter(([, value]) => value != null);
  return `${milliseconds(totalMs)} (${told.map(([name, value]) => `${name.replace(/Ms$/, "")} ${milliseconds(value)}`).join(", ")})`;
}
