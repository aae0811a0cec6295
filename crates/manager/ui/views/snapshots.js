import { at, get, send } from "../api.js";
import { button, h, table } from "../dom.js";
import { milliseconds, short, size, state, time } from "../format.js";

export const events = ["snapshot.", "image."];

/** @param {() => void} again */
export async function draw(again) {
  const [users, seeds] = await Promise.all([get("/v1/snapshots"), get("/v1/snapshots?scope=internal")]);
  return [
    h("h1", {}, "Snapshots"),
    table(
      ["ID", "Kind", "Of", "Size", "On disk", "Frozen", "Made", ""],
      users.map((/** @type {any} */ snapshot) => [
        short(snapshot.id),
        snapshot.kind,
        short(snapshot.sourceVmId),
        `${snapshot.cpu} × ${snapshot.memMb} MB`,
        size(snapshot.sizeBytes),
        milliseconds(snapshot.frozenMs),
        time(snapshot.createdAt),
        button("Delete", async () => {
          await send("DELETE", at`/v1/snapshots/${snapshot.id}`);
          again();
        }, { class: "danger", ask: `Delete the snapshot ${snapshot.id}?` }),
      ]),
      "None was taken.",
    ),
    h("h2", {}, "Seeds"),
    h("p", { class: "dim" }, "What VMs start from. The server makes and removes them by itself."),
    table(
      ["ID", "Image", "For", "State", "On disk", "Made"],
      seeds.map((/** @type {any} */ seed) => [
        short(seed.id),
        short(seed.imageId),
        `${seed.cpu} × ${seed.memMb} MB`,
        h("span", { title: seed.error }, state(seed.status ?? "ready")),
        size(seed.sizeBytes),
        time(seed.createdAt),
      ]),
    ),
  ];
}
