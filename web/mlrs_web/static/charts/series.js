/** Computes with series of numbers in which `null` is a gap. */

/** @typedef {number | null} Num */

/**
 * Smooths with an exponential moving average without bias at the start: each value is the weighted mean of those up to
 * it, with weights that fall by `weight` from one to the one before. Gaps stay gaps.
 *
 * @param {Num[]} values
 * @param {number} weight 0 (none) to below 1
 * @returns {Num[]}
 */
export function smoothed(values, weight) {
  if (weight <= 0) return values;
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value;
    mass = mass * weight + 1;
    return sum / mass;
  });
}

/**
 * Reads a series at other positions, on straight lines between its points; beyond its ends there is nothing.
 *
 * @param {number[]} xs ascending
 * @param {Num[]} ys
 * @param {number[]} positions ascending
 * @returns {Num[]}
 */
export function resampled(xs, ys, positions) {
  const known = xs.flatMap((x, index) => (ys[index] === null ? [] : [[x, /** @type {number} */ (ys[index])]]));
  let right = 0;
  return positions.map((at) => {
    while (right < known.length && known[right][0] < at) right += 1;
    if (right < known.length && known[right][0] === at) return known[right][1];
    if (right === 0 || right === known.length) return null;
    const [[x0, y0], [x1, y1]] = [known[right - 1], known[right]];
    return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
  });
}

/** Positions at equal distances. @param {number} low @param {number} high @param {number} number at least 2 @returns {number[]} */
export function evenly(low, high, number) {
  return Array.from({ length: number }, (_, index) => low + ((high - low) * index) / (number - 1));
}

/** The least and the greatest value of lists; `[Infinity, -Infinity]` of none. @param {...Num[]} lists @returns {[number, number]} */
export function extent(...lists) {
  let [low, high] = [Infinity, -Infinity];
  for (const list of lists) {
    for (const value of list) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return [low, high];
}
