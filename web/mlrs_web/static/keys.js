/** Keys: those of every page, those of the page shown, and a list of both. */

import { go } from "./router.js";
import { h } from "./view/dom.js";

/** @typedef {{key: string, shown?: string, does: string, run: (event: KeyboardEvent) => void}} Key */

const GO_TO = /** @type {const} */ ([
  ["r", "/runs", "the runs"],
  ["c", "/compare", "the comparison"],
  ["t", "/tasks", "the tasks"],
  ["m", "/models", "the models"],
  ["h", "/health", "the health of the daemon"],
]);
const AFTER_G_MS = 1500;

/** @type {Key[]} */
let pageKeys = [];
let afterG = -Infinity;

/** Forgets the keys of the page that is left. */
export function resetPageKeys() {
  pageKeys = [];
}

/** Adds keys of the page shown. @param {Key[]} keys */
export function addPageKeys(keys) {
  pageKeys = [...pageKeys, ...keys];
}

/** Starts to listen. */
export function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (document.querySelector("dialog[open]")) return;
    if (isTyping(target)) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.timeStamp - afterG < AFTER_G_MS) {
      afterG = -Infinity;
      const place = GO_TO.find(([key]) => key === event.key);
      if (place) return go(place[1]);
    }
    if (event.key === "g") afterG = event.timeStamp;
    else if (event.key === "?") showKeys();
    else pageKeys.find((one) => one.key === event.key)?.run(event);
  });
}

/** Opens the list of keys. */
export function showKeys() {
  const rows = (/** @type {[string, string][]} */ keys) =>
    keys.map(([key, does]) =>
      h("div", { class: "key" }, h("dt", {}, ...key.split(" ").map((one) => h("kbd", {}, one))), h("dd", {}, does)),
    );
  const own = pageKeys
    .filter((one) => one.shown !== "")
    .map((one) => /** @type {[string, string]} */ ([one.shown ?? one.key, one.does]));
  const dialog = h(
    "dialog",
    { class: "keys", "aria-labelledby": "keys-title", onclose: () => dialog.remove() },
    h("h2", { id: "keys-title" }, "Keys"),
    own.length ? [h("h3", {}, "On this page"), h("dl", {}, ...rows(own))] : null,
    h("h3", {}, "Everywhere"),
    h(
      "dl",
      {},
      ...rows([
        ...GO_TO.map(([key, , place]) => /** @type {[string, string]} */ ([`g ${key}`, `Go to ${place}`])),
        ["?", "Show the keys"],
      ]),
    ),
    h("form", { method: "dialog" }, h("button", { class: "button", autofocus: true }, "Close")),
  );
  document.body.append(dialog);
  /** @type {any} */ (dialog).showModal();
}

/** @param {HTMLElement} node */
function isTyping(node) {
  const typed = node instanceof HTMLInputElement && !["checkbox", "radio", "range", "button"].includes(node.type);
  return typed || node instanceof HTMLTextAreaElement || node instanceof HTMLSelectElement || node.isContentEditable;
}
