// Elements. Text stays text: nothing that comes from the server or a VM is ever read as HTML, or looks like other text.

/** Characters that cannot be seen, or change the order of those around them. Lines and tabs may be. */
const MISLEADING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f]/g;

/** @param {string} text */
const plain = (text) => text.replace(MISLEADING, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Makes an element. An attribute that is a function is a listener (`onclick`), one that is false or missing is left out.
 *
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : plain(String(child)));
  }
  return element;
}

/**
 * A table, or a sentence where there is nothing.
 *
 * @param {string[]} heads
 * @param {Child[][]} rows
 * @param {string} [none]
 */
export function table(heads, rows, none = "None.") {
  if (rows.length === 0) return h("p", { class: "dim" }, none);
  const head = h("thead", {}, h("tr", {}, heads.map((name) => h("th", {}, name))));
  const body = rows.map((cells) => h("tr", {}, cells.map((cell, at) => h("td", { class: heads[at] === "" && "actions" }, cell))));
  return h("div", { class: "scroll" }, h("table", {}, head, h("tbody", {}, body)));
}

/**
 * Names and values; what has no value is left out.
 *
 * @param {Record<string, Child>} facts
 */
export function list(facts) {
  const there = Object.entries(facts).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", {}, there.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/**
 * A button that is shut while its work is done, and shows what went wrong.
 *
 * @param {string} label
 * @param {() => unknown} work
 * @param {{ class?: string, ask?: string, disabled?: boolean }} [how] `ask` is a question to be agreed to first
 */
export function button(label, work, { ask, ...attributes } = {}) {
  const onclick = async () => {
    if (ask && !confirm(ask)) return;
    element.disabled = true;
    tell("");
    try {
      await work();
    } catch (error) {
      tell(words(error), "fault");
    } finally {
      element.disabled = false;
    }
  };
  const element = /** @type {HTMLButtonElement} */ (h("button", { type: "button", onclick, ...attributes }, label));
  return element;
}

/**
 * A form whose fields `submit` gets by name, as texts, and files. What goes wrong is shown below them.
 *
 * @param {Child[]} fields
 * @param {string} label
 * @param {(values: any) => unknown} submit
 */
export function form(fields, label, submit) {
  const fault = h("p", { class: "fault wide", role: "alert" });
  const go = /** @type {HTMLButtonElement} */ (h("button", { class: "first" }, label));
  const onsubmit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    fault.textContent = "";
    go.disabled = true;
    try {
      await submit(Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (element))));
    } catch (error) {
      fault.textContent = words(error);
    } finally {
      go.disabled = false;
    }
  };
  const element = h("form", { class: "fields", onsubmit }, fields, h("div", { class: "row" }, go), fault);
  return element;
}

/**
 * @param {string} label
 * @param {string} name
 * @param {Record<string, unknown>} [attributes] of the input
 */
export const field = (label, name, attributes = {}) => h("label", {}, label, h("input", { name, ...attributes }));

/**
 * @param {string} label
 * @param {string} name
 * @param {[string, string][]} options value and text
 * @param {string | null} [chosen] value
 */
export const choice = (label, name, options, chosen) =>
  h("label", {}, label, h("select", { name }, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text))));

/**
 * @param {string} label
 * @param {string} name
 * @param {string} [placeholder]
 */
export const lines = (label, name, placeholder) =>
  h("label", { class: "wide" }, label, h("textarea", { name, placeholder, spellcheck: "false", autocomplete: "off" }));

/** The lines of a text that are not empty.
 * @param {string} text
 */
export const split = (text) => text.split("\n").map((line) => line.trim()).filter((line) => line !== "");

/**
 * Says something above the view, until there is something else to be said.
 *
 * @param {string} text
 * @param {"good" | "fault"} kind
 */
export function tell(text, kind = "good") {
  const notice = /** @type {HTMLElement} */ (document.getElementById("notice"));
  notice.className = kind;
  notice.textContent = text;
}

/** What went wrong.
 * @param {unknown} error
 */
export const words = (error) => (error instanceof Error ? error.message : String(error));
