/** Reads records of runs. */

import { get } from "./client.js";
import { buckets, merged } from "./record.js";

/** @typedef {import("../types.js").RunRecord} RunRecord */

const BUCKETS = 1000;

/**
 * Reads a record, piece by piece where it comes in pieces.
 *
 * @param {{id: string, from?: number, to?: number, buckets?: number}} part
 * @param {AbortSignal} signal
 * @returns {Promise<RunRecord>}
 */
export async function readRecord(part, signal) {
  /** @type {RunRecord} */
  let record = await get("/api/record", { buckets: BUCKETS, ...part }, signal);
  while (record.has_more) {
    record = merged(record, await get("/api/record", { id: part.id, cursor: record.cursor, to: part.to }, signal));
  }
  return record;
}

/**
 * Returns a whole record with what is new since it was read; nothing is asked about a run that has ended.
 *
 * @param {RunRecord} record
 * @param {number} most the buckets that it was asked for with
 * @param {AbortSignal} signal
 * @returns {Promise<RunRecord>}
 */
export async function readNews(record, most, signal) {
  if (isComplete(record)) return record;
  const { id } = record.run;
  let now = record;
  do {
    if (isOutgrown(now, most)) return readRecord({ id, buckets: most }, signal);
    now = merged(now, await get("/api/record", { id, cursor: now.cursor }, signal));
  } while (now.has_more);
  return now;
}

/** Whether a record has so many buckets by now that it is better read anew, in coarser ones. @param {RunRecord} record @param {number} [most] the buckets that it was asked for with */
export const isOutgrown = (record, most = BUCKETS) => buckets(record) >= 2 * most;

/** Whether a record has all that its run will ever have. @param {RunRecord} record */
const isComplete = ({ run, end_step }) => run.status === "finished" && end_step >= run.next_step;
