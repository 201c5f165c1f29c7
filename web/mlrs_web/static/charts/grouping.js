/** Puts marks together that would cover each other. */

/** Marks nearer to each other than so many pixels are drawn as one. */
export const APART = 10;

/** @typedef {{from: number, to: number, words: string, number?: number}} Mark */
/** @typedef {{left: number, right: number, marks: Mark[]}} Group pixels of the plot, and the marks that are drawn as one */

/**
 * Puts marks that would cover each other together.
 *
 * @param {Mark[]} marks
 * @param {(step: number) => number} toPixels
 * @param {number} width of the plot
 * @returns {Group[]}
 */
export function grouped(marks, toPixels, width) {
  /** @type {Group[]} */
  const groups = [];
  for (const mark of marks) {
    const [left, right] = [toPixels(mark.from), toPixels(mark.to)];
    if (right < -1 || left > width + 1) continue;
    const last = groups.at(-1);
    if (last && left - last.right < APART && left - last.left < 4 * APART) {
      last.marks.push(mark);
      last.right = Math.max(last.right, right);
    } else groups.push({ left, right, marks: [mark] });
  }
  return groups;
}
