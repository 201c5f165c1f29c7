/** Answers a second, from what successive polls of a daemon say. */

/**
 * @typedef {object} Status
 * @property {number} time
 * @property {number} live_runs
 * @property {number} streams
 * @property {number} followers
 * @property {Record<string, number>} answers
 * @property {Record<string, number>} refusals
 * @property {{upper_bounds_s: number[], counts: number[]}} latency
 * @property {number} pending_barriers
 * @property {number} ranks_waiting
 * @property {number} resident_memory_bytes
 * @property {{engine: string, works: boolean, unstored_answers: number, since_flush_s: number | null, flushes: number, flush_time_s: number, flush_failures: number}} store
 * @property {{address: string, answering: boolean, shards: number, unfinished_runs: number | null, lease_until: number | null}[]} replicas
 *
 * @typedef {{last: {time: number, answers: number} | null, times: number[], perSecond: number[]}} Rates
 */

const KEPT = 300;

/** @returns {Rates} */
export const emptyRates = () => ({ last: null, times: [], perSecond: [] });

/** Adds a poll. After a restart of the daemon, whose counts begin again, the next poll is the first. @param {Rates} rates @param {Status} status */
export function addPoll(rates, status) {
  const answers = Object.values(status.answers).reduce((sum, one) => sum + one, 0);
  const { last } = rates;
  rates.last = { time: status.time, answers };
  if (!last || status.time <= last.time || answers < last.answers) return;
  rates.times.push(status.time);
  rates.perSecond.push((answers - last.answers) / (status.time - last.time));
  if (rates.times.length > KEPT) {
    rates.times.shift();
    rates.perSecond.shift();
  }
}
