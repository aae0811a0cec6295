// The page to sign in.

import { send } from "./api.js";
import { words } from "./dom.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("login"));
const fault = /** @type {HTMLElement} */ (document.getElementById("fault"));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  fault.textContent = "";
  try {
    await send("POST", "/auth/login", Object.fromEntries(new FormData(form)));
    location.assign("/");
  } catch (error) {
    fault.textContent = words(error);
  }
});
