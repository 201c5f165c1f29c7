/** A list of which the first page is read again and again. */

/** @typedef {import("../../types.js").Run} Run */
/** @typedef {{runs: Run[], cursor: string | null}} Part a list as far as it was read, and how it goes on */

/**
 * Returns a list after its first page was read again.
 *
 * @param {Part} old
 * @param {Part} first
 * @param {boolean} hold whether the rows keep their places, since someone points at one: then only their values change
 * @returns {Part}
 */
export function refreshed(old, first, hold) {
  const now = new Map(first.runs.map((run) => [run.id, run]));
  if (hold && old.runs.length) return { runs: old.runs.map((run) => now.get(run.id) ?? run), cursor: old.cursor };
  if (first.cursor === null) return first;
  const rest = old.runs.filter((run) => !now.has(run.id));
  return { runs: [...first.runs, ...rest], cursor: old.runs.length ? (old.cursor ?? null) : first.cursor };
}
