/** The loss and the learning rate of a run over its steps, as pictures for charts. */

import { middles, span } from "../../api/record.js";
import { spansDecades } from "../../charts/scales.js";
import { smoothed } from "../../charts/series.js";
import { h } from "../../view/dom.js";
import { count, loss, rate } from "../../view/format.js";

/** @typedef {import("../../types.js").RunRecord} RunRecord */

/**
 * @param {RunRecord} record
 * @param {number} smoothing
 * @param {import("../../charts/lanes.js").Lane[]} lanes
 */
export function picturesOf(record, smoothing, lanes) {
  const xs = middles(record);
  const losses = record.loss.mean;
  const coarse = record.steps_per_bucket > 1;
  const line = { label: "loss", colour: "series-1", values: smoothed(losses, smoothing) };
  const raw = { label: "loss, not smoothed", colour: "series-1", opacity: 0.35, width: 1, values: losses };
  const band = (/** @type {import("../../types.js").Column} */ column, /** @type {string} */ colour) =>
    coarse ? [{ low: column.min, high: column.max, colour }] : [];
  return {
    loss: {
      xs,
      lines: smoothing > 0 ? [raw, line] : [line],
      bands: band(record.loss, "series-1"),
      points: validationPoints(record),
      lanes,
    },
    rate: {
      xs,
      lines: [{ label: "learning rate", colour: "series-2", values: record.lr.mean }],
      bands: band(record.lr, "series-2"),
    },
    log: { loss: spansDecades(losses), rate: false },
  };
}

/** Validation losses, those of meta updates included. @param {RunRecord} record @returns {import("../../charts/overlay.js").Point[]} */
export function validationPoints(record) {
  const told = record.validations.flatMap(({ step, loss: value }) =>
    value === null
      ? []
      : [
          {
            x: step,
            y: value,
            shape: /** @type {const} */ ("diamond"),
            colour: "series-4",
            words: `Validation loss ${loss(value)} at step ${count(step)}`,
          },
        ],
  );
  const updates = record.updates.flatMap(({ step, validation_loss: value }) =>
    value === null
      ? []
      : [
          {
            x: step,
            y: value,
            shape: /** @type {const} */ ("ring"),
            colour: "series-4",
            radius: 3,
            words: `Validation loss ${loss(value)} of the meta update at step ${count(step)}`,
          },
        ],
  );
  return [...updates, ...told];
}

/** The values at a bucket, or the newest ones. @param {RunRecord} record @param {number | null} index */
export function readoutOf(record, index) {
  const last = record.loss.mean.length - 1;
  const at = index === null || index > last ? last : index;
  if (at < 0) return ["No steps yet."];
  const [from, to] = span(record, at);
  const steps = from === to ? `step ${count(from)}` : `steps ${count(from)} to ${count(to)}`;
  return [
    h("span", {}, index === null ? `newest: ${steps}` : steps),
    value("loss", "series-1", loss, record.loss, at, from !== to),
    value("learning rate", "series-2", rate, record.lr, at, from !== to),
  ];
}

/** @param {string} word @param {string} ink @param {(value: number | null) => string} text @param {import("../../types.js").Column} column @param {number} at @param {boolean} many */
function value(word, ink, text, column, at, many) {
  const [low, high] = [text(column.min[at]), text(column.max[at])];
  const range = many && low !== high ? h("span", { class: "range" }, ` (${low} to ${high})`) : null;
  return h(
    "span",
    {},
    h("i", { class: `swatch ink-${ink}`, "aria-hidden": "true" }),
    `${word} `,
    h("b", {}, text(column.mean[at])),
    range,
  );
}
