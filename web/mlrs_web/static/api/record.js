/** Records of runs: what arrives piece by piece becomes one. */

/** @typedef {import("../types.js").RunRecord} RunRecord */

const COLUMNS = /** @type {const} */ (["loss", "lr"]);
const MEASURES = /** @type {const} */ (["min", "max", "mean"]);

/**
 * Returns a record together with what is new of it: buckets from `news.first_step` on are replaced.
 *
 * @param {RunRecord} record
 * @param {RunRecord} news with buckets of the same size
 * @returns {RunRecord}
 */
export function merged(record, news) {
  const kept = Math.max(0, Math.min(buckets(record), bucketOf(record, news.first_step)));
  const before = (/** @type {number} */ step) => step < news.first_step;
  /** @type {any} */
  const columns = {};
  for (const column of COLUMNS) {
    columns[column] = {};
    for (const measure of MEASURES) {
      columns[column][measure] = [...record[column][measure].slice(0, kept), ...news[column][measure]];
    }
  }
  const first_step = kept === 0 ? news.first_step : record.first_step;
  const again = new Set(news.validations.map((one) => one.step));
  return {
    ...news,
    ...columns,
    first_step,
    held: [...record.held.slice(0, kept), ...news.held],
    signals: mergedSignals(record.signals, news.signals, kept),
    validations: [...record.validations.filter((one) => before(one.step) && !again.has(one.step)), ...news.validations],
    updates: [...record.updates.filter((one) => before(one.step)), ...news.updates],
    restores: [...record.restores.filter(before), ...news.restores],
    restored: [...record.restored.filter(before), ...news.restored],
  };
}

/** @param {RunRecord} record */
export const buckets = (record) => record.loss.mean.length;

/** The index of the bucket of a step. @param {RunRecord} record @param {number} step */
export function bucketOf(record, step) {
  return Math.floor((step - record.first_step) / record.steps_per_bucket);
}

/** The middle of each bucket, in steps; the last bucket may be shorter. @param {RunRecord} record @returns {number[]} */
export function middles(record) {
  const { first_step, steps_per_bucket, end_step } = record;
  return record.loss.mean.map((_, index) => {
    const start = first_step + index * steps_per_bucket;
    const last = Math.min(start + steps_per_bucket, Math.max(end_step, start + 1)) - 1;
    return (start + last) / 2;
  });
}

/** "step 7", or "steps 8 to 15" of a bucket. @param {RunRecord} record @param {number} index @returns {[number, number]} */
export function span(record, index) {
  const start = record.first_step + index * record.steps_per_bucket;
  return [start, Math.max(start, Math.min(start + record.steps_per_bucket, record.end_step) - 1)];
}

/** @param {RunRecord["signals"]} old @param {RunRecord["signals"]} news @param {number} kept */
function mergedSignals(old, news, kept) {
  /** @type {RunRecord["signals"]} */
  const all = {};
  for (const name of new Set([...Object.keys(old), ...Object.keys(news)])) {
    const before = (old[name] ?? []).filter(([index]) => index < kept);
    const after = (news[name] ?? []).map(([index, value]) => /** @type {[number, number]} */ ([index + kept, value]));
    all[name] = [...before, ...after];
  }
  return all;
}
