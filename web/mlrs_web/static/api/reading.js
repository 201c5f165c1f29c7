/** Reads records of runs. */

import { get } from "./client.js";
import { merged } from "./record.js";

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
