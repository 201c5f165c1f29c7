/** The losses and learning rates of several runs over the same x: steps, or shares of their horizons. */

import { middles } from "../../api/record.js";
import { spansDecades } from "../../charts/scales.js";
import { evenly, resampled, smoothed } from "../../charts/series.js";
import { h } from "../../view/dom.js";
import { count, loss, rate } from "../../view/format.js";

/** @typedef {import("./reading.js").Compared} Compared */
/** @typedef {import("../../types.js").RunRecord} RunRecord */

const POINTS = 800;

/** What a share of 1 is, in steps; without a horizon, the steps made. @param {RunRecord} record */
const lengthOf = (record) => record.run.horizon ?? Math.max(1, record.run.next_step);

/** @param {RunRecord} record @param {string} align @returns {number[]} */
function positions(record, align) {
  const steps = middles(record);
  return align === "share" ? steps.map((step) => step / lengthOf(record)) : steps;
}

/** The range of x that shows all of all runs. @param {Compared[]} runs @param {string} align @returns {[number, number]} */
export function wholeOf(runs, align) {
  if (align === "share") return [0, Math.max(1, ...runs.map(({ record }) => (record.end_step - 1) / lengthOf(record)))];
  return [0, Math.max(1, ...runs.map(({ record }) => record.end_step - 1))];
}

/** The steps of a run within a range of x. @param {RunRecord} record @param {string} align @param {[number, number]} view */
export function stepsOf(record, align, [from, to]) {
  const scale = align === "share" ? lengthOf(record) : 1;
  const start = Math.min(Math.max(0, Math.floor(from * scale)), Math.max(0, record.end_step - 1));
  return { from: start, to: Math.max(start + 1, Math.ceil(to * scale) + 1) };
}

/** @param {[number, number]} view */
const grid = (view) => evenly(view[0], view[1], POINTS);

/** @param {number} share */
const shareText = (share) => `${Number((100 * share).toFixed(2))} %`;

/** @param {Compared[]} runs @param {string} align @param {[number, number]} view @param {number} smoothing */
export function picturesOf(runs, align, view, smoothing) {
  const xs = grid(view);
  const axis = align === "share" ? { xLabel: "share of the horizon", xText: shareText } : {};
  const line = (/** @type {Compared} */ { id, record, style }, /** @type {(number | null)[]} */ values) => ({
    label: id,
    ...style,
    width: 1.75,
    values: resampled(positions(record, align), values, xs),
  });
  const losses = runs.map((run) => line(run, smoothed(run.record.loss.mean, smoothing)));
  const rates = runs.map((run) => line(run, run.record.lr.mean));
  return {
    loss: { ...axis, xs, lines: losses },
    rate: { ...axis, xs, lines: rates },
    log: {
      loss: spansDecades(runs.flatMap(({ record }) => record.loss.mean)),
      rate: spansDecades(runs.map(({ record }) => Math.max(...record.lr.mean.map((one) => one ?? 0)))),
    },
  };
}

/** The values of every run at a position. @param {Compared[]} runs @param {string} align @param {[number, number]} view @param {number | null} index */
export function readoutOf(runs, align, view, index) {
  if (index === null)
    return [
      h(
        "span",
        { class: "quiet" },
        "Point at the charts for the values at a step. Drag to zoom in, double click for all.",
      ),
    ];
  const x = grid(view)[index];
  const where = h(
    "span",
    {},
    align === "share" ? `at ${(100 * x).toFixed(1)} % of the horizon` : `at step ${count(Math.round(x))}`,
  );
  return [where, ...runs.flatMap((run) => valueOf(run, align, x) ?? [])];
}

/** @param {Compared} run @param {string} align @param {number} x */
function valueOf({ id, record, style }, align, x) {
  const xs = positions(record, align);
  const [at] = resampled(xs, record.loss.mean, [x]);
  if (at === null) return null;
  const [lr] = resampled(xs, record.lr.mean, [x]);
  return h(
    "span",
    {},
    h("i", { class: `swatch ink-${style.colour}`, "aria-hidden": "true" }),
    `${id} `,
    h("b", {}, loss(at)),
    h("span", { class: "range" }, ` at ${rate(lr)}`),
  );
}
