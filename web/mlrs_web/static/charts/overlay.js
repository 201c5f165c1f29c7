/** What charts have besides lines: points, and rules across them. Words tell on hover what each is. */

import { drawGlyph } from "./glyphs.js";
import { colour } from "./palette.js";

/**
 * @typedef {object} Point
 * @property {number} x
 * @property {number} y
 * @property {import("./glyphs.js").Shape} shape
 * @property {boolean} [hollow]
 * @property {string} colour
 * @property {number} [radius] in CSS pixels
 * @property {string} words
 * @property {string} [href] where a click leads
 *
 * @typedef {{x?: number, y?: number, colour: string, dash?: number[], words: string}} Rule
 */

const RADIUS = 4;
const REACH = 11;

/**
 * Draws points and rules.
 *
 * @param {any} plot a uPlot
 * @param {Point[]} points
 * @param {Rule[]} rules
 */
export function drawOverlay(plot, points, rules) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left - 6 * ratio, bbox.top - 6 * ratio, bbox.width + 12 * ratio, bbox.height + 12 * ratio);
  ctx.clip();
  for (const rule of rules) drawRule(plot, rule, ratio);
  for (const point of points) {
    const x = plot.valToPos(point.x, "x", true);
    const y = plot.valToPos(point.y, "y", true);
    if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
    drawGlyph(ctx, point, x, y, (point.radius ?? RADIUS) * ratio, colour(point.colour), colour("surface"));
  }
  ctx.restore();
}

/** @param {any} plot @param {Rule} rule @param {number} ratio */
function drawRule(plot, rule, ratio) {
  const { ctx, bbox } = plot;
  const across = rule.x === undefined;
  const at = Math.round(across ? plot.valToPos(rule.y, "y", true) : plot.valToPos(rule.x, "x", true));
  if (!Number.isFinite(at)) return;
  ctx.beginPath();
  ctx.strokeStyle = colour(rule.colour);
  ctx.lineWidth = 1.5 * ratio;
  ctx.setLineDash((rule.dash ?? []).map((one) => one * ratio));
  if (across) {
    ctx.moveTo(bbox.left, at);
    ctx.lineTo(bbox.left + bbox.width, at);
  } else {
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
  }
  ctx.stroke();
  ctx.setLineDash([]);
}

/**
 * What is at a position of the plot, in CSS pixels; points come before rules.
 *
 * @param {any} plot a uPlot
 * @param {Point[]} points
 * @param {Rule[]} rules
 * @param {number} left
 * @param {number} top
 * @returns {{words: string, href?: string, left: number, top: number} | null}
 */
export function overlayAt(plot, points, rules, left, top) {
  let best = null;
  let least = REACH;
  for (const point of points) {
    const [x, y] = [plot.valToPos(point.x, "x"), plot.valToPos(point.y, "y")];
    const distance = Math.hypot(x - left, y - top);
    if (distance < least) [best, least] = [{ words: point.words, href: point.href, left: x, top: y }, distance];
  }
  if (best) return best;
  for (const rule of rules) {
    const across = rule.x === undefined;
    const at = across ? plot.valToPos(rule.y, "y") : plot.valToPos(rule.x, "x");
    if (rule.words && Math.abs(at - (across ? top : left)) < 5) {
      return { words: rule.words, left: across ? left : at, top: across ? at : top };
    }
  }
  return null;
}
