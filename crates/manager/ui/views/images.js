import { at, get, send } from "../api.js";
import { button, choice, field, form, h, table } from "../dom.js";
import { short, size, state, time } from "../format.js";

export const events = ["image."];

/** @param {() => void} again */
export async function draw(again) {
  const images = await get("/v1/images");
  return [
    h("h1", {}, "Images"),
    table(
      ["Name", "ID", "Files", "Root filesystem", "Seed", "Made", ""],
      images.map((/** @type {any} */ image) => [
        h("span", {}, image.name, image.isDefault && h("span", { class: "good" }, " default"), h("div", { class: "dim" }, image.description)),
        short(image.id),
        [["kernelFilename", "kernel"], ["rootfsFilename", "rootfs"], ["modulesFilename", "modules"]]
          .filter(([key]) => image[key]).map(([, name]) => name).join(", "),
        size(image.baseRootfsBytes),
        h("span", { title: image.seedError }, state(image.seedStatus), image.seedSizeBytes ? ` ${size(image.seedSizeBytes)}` : ""),
        time(image.createdAt),
        h("span", {}, manage(image, again)),
      ]),
    ),
    h("details", {}, h("summary", {}, "New image"), create(again)),
    h("details", {}, h("summary", {}, "Upload a file of an image"), upload(images, again)),
  ];
}

/** @param {any} image @param {() => void} again */
const manage = (image, again) => [
  !image.isDefault && button("Make default", async () => {
    await send("POST", at`/v1/images/${image.id}/set-default`);
    again();
  }),
  button("Delete", async () => {
    await send("DELETE", at`/v1/images/${image.id}`);
    again();
  }, { class: "danger", ask: `Delete the image ${image.name}?` }),
];

/** @param {() => void} again */
const create = (again) =>
  form([field("Name", "name", { required: true }), field("Description", "description")], "Create", async (values) => {
    await send("POST", "/v1/images", values);
    again();
  });

/** @param {any[]} images @param {() => void} again */
function upload(images, again) {
  const fields = [
    choice("Image", "id", images.map(({ id, name }) => [id, name])),
    choice("File", "part", [["kernel", "kernel"], ["rootfs", "root filesystem (ext4)"], ["modules", "modules"], ["bundle", "bundle of all"]]),
    field("From", "file", { type: "file", required: true }),
  ];
  return form(fields, "Upload", async ({ id, part, file }) => {
    await send("PUT", `${at`/v1/images/${id}`}/${part}`, file);
    again();
  });
}
