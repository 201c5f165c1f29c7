/** How long the daemon took to answer observations. */

import { h } from "../../view/dom.js";
import { count, duration, percent } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { table } from "../../view/table.js";

/** @typedef {{upper_bounds_s: number[], counts: number[]}} Histogram */

/** @param {Histogram} latency */
export function latencyPanel(latency) {
  const total = latency.counts.reduce((sum, one) => sum + one, 0);
  if (total === 0) return panel("Latency", null, h("p", { class: "quiet" }, "No observations were answered yet."));
  const lead = `Half of the messages took at most ${quantile(latency, 0.5)}, 99 % at most ${quantile(latency, 0.99)}, since the daemon began.`;
  const [first, last] = [latency.counts.findIndex(Boolean), latency.counts.findLastIndex(Boolean)];
  const most = Math.max(...latency.counts);
  const rows = latency.counts.slice(first, last + 1).map((number, index) => {
    const bar = h("span", { class: "bar tall" }, h("span", { class: "bar-fill" }));
    /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${(100 * number) / most}%`;
    return [boundWords(latency, first + index), bar, h("span", { title: percent(number / total) }, count(number))];
  });
  return panel(
    "Latency",
    lead,
    table(
      "Messages by how long they took",
      [{ title: "took" }, { title: "", class: "wide" }, { title: "messages", class: "number" }],
      rows,
      { cards: false },
    ),
  );
}

/** The bound of the bucket in which a quantile lies. @param {Histogram} latency @param {number} share */
function quantile({ upper_bounds_s, counts }, share) {
  const total = counts.reduce((sum, one) => sum + one, 0);
  let seen = 0;
  for (const [index, number] of counts.entries()) {
    seen += number;
    if (seen >= share * total)
      return index < upper_bounds_s.length
        ? duration(upper_bounds_s[index])
        : `more than ${duration(upper_bounds_s.at(-1))}`;
  }
  return duration(0);
}

/** @param {Histogram} latency @param {number} index */
function boundWords({ upper_bounds_s }, index) {
  return index < upper_bounds_s.length
    ? `≤ ${duration(upper_bounds_s[index])}`
    : `> ${duration(upper_bounds_s.at(-1))}`;
}
