/** The colours of charts, from the variables of the style sheet, and what lines look like when there are many. */

import { THEME_CHANGED } from "../theme.js";

/** How many colours lines have before dashes and markers tell them apart. */
export const SERIES_COLOURS = 7;

/** @type {Map<string, string>} */
const known = new Map();
document.addEventListener(THEME_CHANGED, () => known.clear());

/** The colour of a name in the present theme. @param {string} name such as `series-1` @returns {string} */
export function colour(name) {
  let value = known.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    known.set(name, value);
  }
  return value;
}

/** A colour that lets through what is behind it. @param {string} name @param {number} opacity from 0 to 1 */
export function faint(name, opacity) {
  const hex = colour(name).slice(1);
  const [red, green, blue] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${red}, ${green}, ${blue}, ${opacity})`;
}

/** @typedef {{colour: string, dash: number[], marker: import("./glyphs.js").Shape | null}} LineStyle */

const DASHES = [
  [7, 4],
  [2, 3],
  [10, 3, 2, 3],
];
const MARKERS = /** @type {const} */ ([null, "circle", "square"]);

/**
 * The look of line `index` of many: advised runs are solid, schedules dashed. Where colours repeat, markers tell advised
 * runs apart, and other dashes the schedules.
 *
 * @param {number} index
 * @param {boolean} advised
 * @returns {LineStyle}
 */
export function lineStyle(index, advised) {
  const again = Math.floor(index / SERIES_COLOURS) % DASHES.length;
  const name = `series-${(index % SERIES_COLOURS) + 1}`;
  return advised
    ? { colour: name, dash: [], marker: MARKERS[again] }
    : { colour: name, dash: DASHES[again], marker: null };
}
