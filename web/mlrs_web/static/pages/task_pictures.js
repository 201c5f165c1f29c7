/** How the runs of a task ended over the learning rates that they began with, as pictures for charts. */

import { resampled } from "../charts/series.js";
import { SERIES_COLOURS } from "../charts/palette.js";
import { links } from "../router.js";
import { loss, rate, significant, words } from "../view/format.js";
import { ENDINGS } from "../view/words.js";

/**
 * @typedef {{policy: string, learning_rate: number | null, lr_offset: number, value: number, low: number, high: number}} Expected
 *
 * @typedef {object} Past
 * @property {string} id
 * @property {number} time
 * @property {string | null} ending
 * @property {string} policy
 * @property {number | null} learning_rate
 * @property {number} lr_offset
 * @property {boolean} searched
 * @property {string} optimizer
 * @property {number} horizon
 * @property {number | null} metric
 * @property {boolean} higher_is_better
 * @property {number | null} validation_loss
 * @property {number | null} training_loss
 *
 * @typedef {object} Memory
 * @property {number} [remembered] how many runs, of which `runs` are the newest
 * @property {string | null} measure
 * @property {Past[]} runs
 * @property {Expected[]} curve
 * @property {Expected | null} best
 * @property {{why: string, decided: boolean, measure: string | null, expected_low: number | null, expected_high: number | null} | null} next
 * @property {Expected | null} next_arm
 */

/** @typedef {import("../charts/chart.js").Picture} Picture */

const FIRST = { policy: "", colour: "series-1", hollow: false, dash: /** @type {number[]} */ ([]) };

/** How a run ended by a measure. @param {Past} run @param {string | null} measure @returns {number | null} */
export function endedAt(run, measure) {
  return measure === null ? null : (/** @type {Record<string, any>} */ (run)[measure] ?? null);
}

/** The policies of a task, each with its look: every other one is dashed and hollow, so that colours are not needed. @param {Memory} memory */
export function policiesOf(memory) {
  const names = [...new Set([...memory.curve, ...memory.runs].map((one) => one.policy))].sort();
  return names.map((policy, index) => ({
    policy,
    colour: `series-${(index % SERIES_COLOURS) + 1}`,
    hollow: index % 2 === 1,
    dash: index % 2 === 1 ? [7, 4] : [],
  }));
}

/** Over learning rates, for runs that began with one. @param {Memory} memory @returns {Picture | null} */
export function ratePicture(memory) {
  return picture(memory, (one) => one.learning_rate, true);
}

/** Over the octaves by which a model's rates were multiplied. @param {Memory} memory @returns {Picture | null} */
export function offsetPicture(memory) {
  return picture(memory, (one) => (one.learning_rate === null ? one.lr_offset : null), false);
}

/** @param {Memory} memory @param {(one: Past | Expected) => number | null} place @param {boolean} logX @returns {Picture | null} */
function picture(memory, place, logX) {
  const looks = new Map(policiesOf(memory).map((look) => [look.policy, look]));
  const lookOf = (/** @type {string} */ policy) => looks.get(policy) ?? FIRST;
  const points = memory.runs.flatMap((run) => pointOf(run, place(run), memory.measure, lookOf(run.policy)));
  const curve = memory.curve.filter((one) => place(one) !== null);
  if (!points.length && !curve.length) return null;
  const xs = [...new Set(curve.map((one) => /** @type {number} */ (place(one))))].sort((a, b) => a - b);
  const groups = [...Map.groupBy(curve, (one) => one.policy)];
  const read = (/** @type {Expected[]} */ group, /** @type {"value" | "low" | "high"} */ what) => {
    const sorted = group.toSorted((a, b) => /** @type {number} */ (place(a)) - /** @type {number} */ (place(b)));
    return resampled(
      sorted.map((one) => /** @type {number} */ (place(one))),
      sorted.map((one) => one[what]),
      xs,
    );
  };
  return {
    xs,
    lines: groups.map(([policy, group]) => ({
      label: policy,
      colour: lookOf(policy).colour,
      dash: lookOf(policy).dash,
      width: 1.75,
      values: read(group, "value"),
    })),
    bands: groups.map(([policy, group]) => ({
      low: read(group, "low"),
      high: read(group, "high"),
      colour: lookOf(policy).colour,
    })),
    points,
    rules: [
      ...ruleOf(memory.best, place, { name: "Best known", colour: "good", dash: [] }),
      ...ruleOf(memory.next_arm, place, { name: "The next run", colour: "ink", dash: [5, 4] }),
    ],
    view: viewOf([...points.map((point) => point.x), ...xs], logX),
    logX,
  };
}

/** @param {Past} run @param {number | null} x @param {string | null} measure @param {{colour: string, hollow: boolean}} look @returns {import("../charts/overlay.js").Point[]} */
function pointOf(run, x, measure, { colour, hollow }) {
  const y = endedAt(run, measure);
  const kind = ENDINGS[run.ending ?? ""];
  if (x === null || y === null || !kind) return [];
  const began =
    run.learning_rate === null
      ? `rates times ${significant(2 ** run.lr_offset, 3)}`
      : `began at ${rate(run.learning_rate)}`;
  return [
    {
      x,
      y,
      shape: kind.shape,
      colour,
      hollow,
      radius: 5,
      href: links.run(run.id),
      words: `${run.id}: ${kind.word}, ${run.policy}, ${began}, ${words(measure ?? "")} ${loss(y)}`,
    },
  ];
}

/** @param {Expected | null} arm @param {(one: Expected) => number | null} place @param {{name: string, colour: string, dash: number[]}} look */
function ruleOf(arm, place, { name, colour, dash }) {
  const x = arm && place(arm);
  if (!arm || x === null) return [];
  return [
    {
      x,
      colour,
      dash,
      words: `${name}: ${arm.policy}, expected ${loss(arm.value)} (${loss(arm.low)} to ${loss(arm.high)})`,
    },
  ];
}

/** @param {number[]} xs @param {boolean} log @returns {[number, number]} */
function viewOf(xs, log) {
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  if (log) return [low / 1.3, high * 1.3];
  const margin = 0.06 * (high - low) || 0.5;
  return [low - margin, high + margin];
}
