/** Ranges of axes and the text of their ticks. */

import { significant } from "../view/format.js";

const MANTISSAS = [1, 2, 5, 10];

/**
 * The range of a linear axis: a little more than the values need. It does not go below 0 where no value does.
 *
 * @param {number} low
 * @param {number} high
 * @returns {[number, number]}
 */
export function linearRange(low, high) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const margin = high > low ? 0.06 * (high - low) : Math.abs(low) * 0.1 || 0.5;
  const least = low - margin;
  return [low >= 0 && least < 0 ? 0 : least, high + margin];
}

/**
 * The range of a logarithmic axis: outwards to 1, 2 or 5 times a power of ten.
 *
 * @param {number} low > 0
 * @param {number} high
 * @returns {[number, number]}
 */
export function logRange(low, high) {
  if (!(low > 0) || !Number.isFinite(high)) return [0.1, 1];
  const least = below(low);
  const most = above(high);
  return least < most ? [least, most] : [below(least * 0.99), above(most * 1.01)];
}

/** @param {number} value */
function below(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const fits = MANTISSAS.filter((one) => one * power <= value * (1 + 1e-9));
  return significantly((fits.at(-1) ?? 1) * power);
}

/** @param {number} value */
function above(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return significantly((MANTISSAS.find((one) => one * power >= value * (1 - 1e-9)) ?? 10) * power);
}

/** Rounds away what is left of computing with powers of ten. @param {number} value */
const significantly = (value) => Number(value.toPrecision(12));

/**
 * Whether a tick of a logarithmic axis has a place for its text: all of them, 1, 2 and 5, or powers of ten only.
 *
 * @param {number} value
 * @param {number} decade the length of a factor of ten, in pixels
 * @param {number} space the least distance of texts, in pixels
 */
export function isLabelled(value, decade, space) {
  const power = Math.floor(Math.log10(value) + 1e-9);
  const mantissa = Math.round(value / 10 ** power);
  if (Math.abs(value / 10 ** power - mantissa) > 1e-6) return false; // the end of the axis, which need not be round
  if (decade * 0.045 >= space) return true;
  if (decade * 0.3 >= space) return [1, 2, 5].includes(mantissa);
  const every = Math.max(1, Math.ceil(space / decade));
  return mantissa === 1 && power % every === 0;
}

/** The text of a tick. @param {number | null} value */
export const tickText = (value) => (value === null ? "" : significant(value, 4));

/** Whether values are better read on a logarithmic axis: all above 0, over two decades and more. @param {(number | null)[]} values */
export function spansDecades(values) {
  let low = Infinity;
  let high = 0;
  for (const value of values) {
    if (value === null) continue;
    if (value <= 0) return false;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return high / low >= 100;
}
