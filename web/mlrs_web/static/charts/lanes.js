/** Rows of marks over a chart, one for each kind, so that marks of different kinds never cover each other. */

import { drawGlyph } from "./glyphs.js";
import { APART, grouped } from "./grouping.js";
import { colour } from "./palette.js";

/** @typedef {import("./grouping.js").Mark} Mark */

/**
 * @typedef {object} Lane
 * @property {string} name
 * @property {string} many what several marks are called, such as "meta updates"
 * @property {import("../view/words.js").Kind} kind
 * @property {Mark[]} marks ascending by `from`
 */

/** The height of a row, in CSS pixels. */
export const LANE_HEIGHT = 14;
const RADIUS = 4;

/** Draws the rows. @param {any} plot a uPlot @param {Lane[]} lanes */
export function drawLanes(plot, lanes) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  const width = bbox.width / ratio;
  const clip = (/** @type {number} */ pixels) => Math.max(0, Math.min(width, pixels)) * ratio + bbox.left;
  lanes.forEach((lane, index) => {
    const y = bbox.top - (lanes.length - index - 0.5) * LANE_HEIGHT * ratio;
    const ink = colour(lane.kind.colour);
    ctx.fillStyle = colour("grid");
    ctx.fillRect(bbox.left, Math.round(y), bbox.width, Math.max(1, ratio));
    for (const group of grouped(lane.marks, (step) => plot.valToPos(step, "x"), width)) {
      const [left, right] = [clip(group.left), clip(group.right)];
      ctx.fillStyle = ink;
      if (right - left > ratio) ctx.fillRect(left, y - 1.5 * ratio, right - left, 3 * ratio);
      drawGlyph(ctx, lane.kind, (left + right) / 2, y, RADIUS * ratio, ink, colour("surface"));
    }
  });
}

/**
 * The words of the marks at a position over the plot, in CSS pixels from its upper left corner.
 *
 * @param {any} plot a uPlot
 * @param {Lane[]} lanes
 * @param {number} left
 * @param {number} top below 0
 * @returns {string | null}
 */
export function lanesAt(plot, lanes, left, top) {
  const lane = lanes[lanes.length - 1 - Math.floor(-top / LANE_HEIGHT)];
  if (!lane) return null;
  const groups = grouped(lane.marks, (step) => plot.valToPos(step, "x"), plot.bbox.width / devicePixelRatio);
  const group = groups.find((one) => left >= one.left - APART && left <= one.right + APART);
  return group ? groupWords(lane, group.marks) : `${lane.kind.word}: ${lane.kind.why}`;
}

/** @param {Lane} lane @param {Mark[]} marks */
function groupWords(lane, marks) {
  if (marks.length === 1) return marks[0].words;
  const number = marks.reduce((sum, mark) => sum + (mark.number ?? 1), 0);
  const last = Math.max(...marks.map((mark) => mark.to));
  return `${number.toLocaleString("en-US")} ${lane.many}, steps ${marks[0].from.toLocaleString("en-US")} to ${last.toLocaleString("en-US")}. Zoom in to tell them apart.`;
}
