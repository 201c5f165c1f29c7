/** Reads the runs that are compared. */

import { readNews, readRecord } from "../../api/reading.js";
import { lineStyle } from "../../charts/palette.js";
import { stepsOf } from "./curves.js";

/** @typedef {import("../../types.js").RunRecord} RunRecord */
/** @typedef {{id: string, record: RunRecord, style: import("../../charts/palette.js").LineStyle}} Compared */

const BUCKETS = 500;

/**
 * Reads the runs, in the order of the ids, or the parts of them that a zoom shows.
 *
 * @param {string[]} ids
 * @param {{of: Compared[], align: string, view: [number, number]} | null} part
 * @param {AbortSignal} signal
 * @returns {Promise<{runs: Compared[], missing: string[]}>} those that exist, and the ids that no run has
 */
export async function readAll(ids, part, signal) {
  const read = await Promise.allSettled(
    ids.map((id) => {
      const known = part?.of.find((one) => one.id === id);
      const steps = part && known ? stepsOf(known.record, part.align, part.view) : {};
      return readRecord({ id, buckets: BUCKETS, ...steps }, signal);
    }),
  );
  const runs = [];
  const missing = [];
  for (const [index, one] of read.entries()) {
    const id = ids[index];
    if (one.status === "fulfilled")
      runs.push({ id, record: one.value, style: lineStyle(index, !one.value.run.schedule) });
    else if (one.reason?.code === "not_found") missing.push(id);
    else throw one.reason;
  }
  return { runs, missing };
}

/**
 * Returns the runs with what is new of them, without those that were deleted. Of a run that cannot be read at present,
 * what is known stays.
 *
 * @param {Compared[]} runs
 * @param {AbortSignal} signal
 * @returns {Promise<Compared[]>}
 */
export async function readAllNews(runs, signal) {
  const read = await Promise.all(
    runs.map(async (one) => {
      try {
        return { ...one, record: await readNews(one.record, BUCKETS, signal) };
      } catch (error) {
        return /** @type {any} */ (error).code === "not_found" ? null : one;
      }
    }),
  );
  return read.filter((one) => one !== null);
}
