/** Nested names and values, such as a config or where a model comes from. */

import { h } from "./dom.js";
import { count, significant, words } from "./format.js";

/** Shows a value; of an object, its names and values, those left out that are empty. @param {any} value @returns {import("./dom.js").Child} */
export function treeNode(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : significant(value, 4);
  if (value === null || typeof value !== "object") return String(value);
  if (Array.isArray(value) && value.every((one) => typeof one !== "object"))
    return value.map((one) => treeNode(one)).join(", ");
  const pairs = Object.entries(value).filter(([, one]) => one !== null && !(Array.isArray(one) && one.length === 0));
  return h(
    "dl",
    { class: "tree" },
    ...pairs.map(([name, one]) => h("div", {}, h("dt", {}, words(name)), h("dd", {}, treeNode(one)))),
  );
}
