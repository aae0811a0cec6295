import { get, send } from "../api.js";
import { choice, field, form, h, lines, split, table } from "../dom.js";
import { short, state, time } from "../format.js";
import { actions, draw as drawOne } from "./vm.js";

export const events = ["vm."];

/** @param {() => void} again @param {string} [id] */
export async function draw(again, id) {
  if (id) return drawOne(again, id);
  const [vms, images, snapshots] = await Promise.all([get("/v1/vms"), get("/v1/images"), get("/v1/snapshots")]);
  return [
    h("h1", {}, "VMs"),
    table(
      ["VM", "State", "Size", "Started from", "Peers", "Made", ""],
      vms.map((/** @type {any} */ vm) => [
        h("a", { href: `#/vms/${vm.id}` }, vm.name ?? short(vm.id)),
        state(vm.state),
        `${vm.cpu} × ${vm.memMb} MB`,
        vm.startedFrom,
        vm.peerLinks.map((/** @type {any} */ link) => link.alias).join(", "),
        time(vm.createdAt),
        h("span", {}, actions(vm, again)),
      ]),
      "There is no VM yet.",
    ),
    h("details", {}, h("summary", {}, "New VM"), create(images, snapshots, vms)),
  ];
}

/** @param {any[]} images @param {any[]} snapshots @param {any[]} vms */
function create(images, snapshots, vms) {
  const fields = [
    field("Name", "name", { placeholder: "may be left out" }),
    field("Processors", "cpu", { type: "number", min: 1, value: 1, required: true }),
    field("Memory in MB", "memMb", { type: "number", min: 1, value: 256, required: true }),
    field("Disk in MB", "diskSizeMb", { type: "number", min: 1, placeholder: "the server's default" }),
    choice("Image", "imageId", [["", "the default image"], ...images.map(({ id, name }) => /** @type {[string, string]} */ ([id, name]))]),
    choice("Snapshot", "userOverlaySnapshotId", [["", "none"], ...snapshots.map(({ id, kind }) => /** @type {[string, string]} */ ([id, `${kind} ${id.slice(0, 8)}`]))]),
    field("Deleted after seconds", "ttlSeconds", { type: "number", min: 1, placeholder: "never" }),
    lines("Addresses it may reach, one a line", "allowIps", "203.0.113.0/24"),
    lines("Names it may reach, one a line", "allowDomains", "api.example.com"),
    lines("Links to providers, one a line", "peerLinks", `mail=${vms[0]?.id ?? "ID of the provider"}`),
    lines("Secrets, one a line", "secretEnv", "TOKEN=value"),
  ];
  return form(fields, "Create", async (values) => {
    const vm = await send("POST", "/v1/vms", request(values));
    location.hash = `#/vms/${vm.id}`;
  });
}

/** The body of a create. What was left empty is left out.
 * @param {Record<string, string>} values
 */
function request({ name, imageId, userOverlaySnapshotId, allowIps, allowDomains, peerLinks, secretEnv, ...sizes }) {
  const given = Object.entries({ name, imageId, userOverlaySnapshotId }).filter(([, value]) => value !== "");
  const numbers = Object.entries(sizes).filter(([, value]) => value !== "").map(([key, value]) => [key, Number(value)]);
  const links = split(peerLinks).map((line) => {
    const [alias, ...rest] = line.split("=");
    return { alias: alias.trim(), vmId: rest.join("=").trim() };
  });
  const addresses = split(allowIps);
  const names = split(allowDomains);
  return {
    ...Object.fromEntries([...given, ...numbers]),
    allowIps: addresses,
    allowDomains: names,
    outboundInternet: addresses.length + names.length > 0,
    peerLinks: links,
    secretEnv: split(secretEnv),
  };
}
