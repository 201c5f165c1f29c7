/** Tables that become cards on a narrow screen. */

import { append, h } from "./dom.js";

/** @typedef {import("./dom.js").Child} Child */
/** @typedef {{title: string, class?: string, hint?: string}} Heading */

/**
 * Makes a table in a box of its own, which scrolls where a table is too wide and is no stack of cards.
 *
 * @param {string} caption read by screen readers; shown where `shown` is set
 * @param {Heading[]} headings
 * @param {(Child | Child[])[][]} rows
 * @param {{cards?: boolean, shown?: boolean, rowClass?: (index: number) => string | null}} [options]
 */
export function table(caption, headings, rows, { cards = true, shown = false, rowClass } = {}) {
  const head = h(
    "tr",
    {},
    ...headings.map((one) => h("th", { scope: "col", class: one.class, title: one.hint }, one.title)),
  );
  const body = rows.map((cells, row) => {
    const line = h("tr", { class: rowClass?.(row) });
    cells.forEach((cell, index) => {
      const heading = headings[index];
      line.append(filledCell(heading, cell, index));
    });
    return line;
  });
  const node = h(
    "table",
    { class: cards ? "cards" : null },
    h("caption", { class: shown ? null : "unseen" }, caption),
    h("thead", {}, head),
    h("tbody", {}, ...body),
  );
  return h(
    "div",
    {
      class: "table-box",
      tabindex: cards ? null : "0",
      role: cards ? null : "region",
      "aria-label": cards ? null : caption,
    },
    node,
  );
}

/** @param {Heading} heading @param {Child | Child[]} cell @param {number} index */
function filledCell(heading, cell, index) {
  const node = h(index === 0 ? "th" : "td", {
    scope: index === 0 ? "row" : null,
    class: heading.class,
    "data-title": heading.title,
  });
  append(node, cell);
  return node;
}
