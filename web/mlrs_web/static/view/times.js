/** Relative times that stay true while a page is open. */

import { h, setText } from "./dom.js";
import { NONE, ago, moment } from "./format.js";

/** A moment as "3 min ago", with the absolute time as its title. @param {number | null | undefined} time @returns {Node | string} */
export function timeNode(time) {
  if (time === null || time === undefined) return NONE;
  const node = h(
    "time",
    { datetime: new Date(time * 1000).toISOString(), title: moment(time) },
    ago(time, Date.now() / 1000),
  );
  node.dataset.time = String(time);
  return node;
}

/** Brings every relative time of the page up to date. */
export function refreshTimes() {
  const now = Date.now() / 1000;
  for (const node of document.querySelectorAll("time[data-time]")) {
    setText(node, ago(Number(/** @type {HTMLElement} */ (node).dataset.time), now));
  }
}
