/** What the lines and marks of a run's chart are. A click on a kind of mark hides it, and shows it again. */

import { glyph } from "../../charts/glyphs.js";
import { fill, h } from "../../view/dom.js";
import { count } from "../../view/format.js";

/** @typedef {import("../../charts/lanes.js").Lane} Lane */
/** @typedef {import("../../types.js").RunRecord} RunRecord */

/** @param {() => void} onchange */
export function buildLegend(onchange) {
  /** @type {Set<string>} */
  const hidden = new Set();
  const lines = h("span", { class: "legend-lines" });
  const marks = h("span", { class: "legend-marks", role: "group", "aria-label": "Marks" });
  const meanings = h("dl", {});
  const more = h("details", { class: "meanings" }, h("summary", {}, "What the marks mean"), meanings);
  let state = "";

  /** @param {Lane} lane */
  function switchNode(lane) {
    const node = h(
      "button",
      {
        class: "mark-switch",
        "aria-pressed": String(!hidden.has(lane.name)),
        title: `${lane.kind.why} Click to hide or show it.`,
      },
      glyph(lane.kind),
      h("span", {}, lane.kind.word),
      h("span", { class: "mark-count" }, count(numberOf(lane))),
    );
    node.addEventListener("click", () => {
      if (!hidden.delete(lane.name)) hidden.add(lane.name);
      node.setAttribute("aria-pressed", String(!hidden.has(lane.name)));
      onchange();
    });
    return node;
  }

  return {
    node: h("div", { class: "legend" }, lines, marks, more),
    /** The rows of marks that the reader has not hidden. @param {Lane[]} lanes */
    chosen: (lanes) => lanes.filter((lane) => !hidden.has(lane.name)),
    /** @param {Lane[]} lanes @param {RunRecord} record @param {boolean} validated @param {number} smoothing */
    show(lanes, record, validated, smoothing) {
      const now = JSON.stringify([
        lanes.map((lane) => [lane.name, numberOf(lane)]),
        record.steps_per_bucket,
        validated,
        smoothing > 0,
      ]);
      if (now === state) return;
      state = now;
      fill(lines, ...lineWords(record, validated, smoothing));
      fill(marks, ...lanes.map(switchNode));
      fill(
        meanings,
        ...lanes.map((lane) => h("div", {}, h("dt", {}, glyph(lane.kind), lane.kind.word), h("dd", {}, lane.kind.why))),
      );
      more.hidden = lanes.length === 0;
    },
  };
}

/** How many marks a row stands for: one of held steps is of all of a bucket. @param {Lane} lane */
const numberOf = (lane) => lane.marks.reduce((sum, mark) => sum + (mark.number ?? 1), 0);

/** @param {RunRecord} record @param {boolean} validated @param {number} smoothing */
function lineWords(record, validated, smoothing) {
  const steps = record.steps_per_bucket;
  const mean =
    smoothing > 0 ? "loss, smoothed" : steps > 1 ? `mean loss of ${count(steps)} steps` : "loss of each step";
  const entry = (/** @type {string} */ mark, /** @type {string} */ words) =>
    h("span", { class: "legend-line" }, h("i", { class: mark, "aria-hidden": "true" }), words);
  const validation = h(
    "span",
    { class: "legend-line" },
    glyph({ shape: "diamond", colour: "series-4" }),
    "validation loss",
  );
  return [
    entry("swatch ink-series-1", mean),
    steps > 1 ? entry("swatch-band ink-series-1", "least to greatest") : null,
    validated ? validation : null,
  ];
}
