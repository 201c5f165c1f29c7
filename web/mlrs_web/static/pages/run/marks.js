/** What happened to a run, as rows of marks with words. */

import { span } from "../../api/record.js";
import { clock, count, counted, loss, rate } from "../../view/format.js";
import { MARKS } from "../../view/words.js";

/** @typedef {import("../../types.js").RunRecord} RunRecord */
/** @typedef {import("../../types.js").RunEvent} RunEvent */
/** @typedef {import("../../charts/lanes.js").Lane} Lane */
/** @typedef {import("../../charts/grouping.js").Mark} Mark */

/** @type {Record<string, string>} */
const MANY = {
  diverged: "divergences",
  held: "held steps",
  restore: "requests to restore",
  restored: "restored states",
  rewound: "rewinds",
  resumed: "resumptions",
  taken_over: "takeovers",
  resized: "changes of the ranks",
  fallback: "fallbacks",
  update: "meta updates",
};

/**
 * The rows of marks of a run: only kinds that occur.
 *
 * @param {RunRecord} record
 * @param {RunEvent[]} events
 * @returns {Lane[]}
 */
export function lanesOf(record, events) {
  /** @type {Record<string, Mark[]>} */
  const marks = {
    diverged:
      record.run.status === "diverged"
        ? [at(record.run.next_step - 1, "Diverged: the last losses up to here were all not finite.")]
        : [],
    held: heldMarks(record),
    restore: record.restores.map((step) => at(step, `Step ${count(step)}: ${lower(MARKS.restore.why)}`)),
    restored: record.restored.map((step) => at(step, `Step ${count(step)}: ${lower(MARKS.restored.why)}`)),
    update: record.updates.map((one) => at(one.step, updateWords(one))),
  };
  const now = Date.now() / 1000;
  for (const event of events) {
    const [from, to] = eventSpan(event);
    (marks[event.kind] ??= []).push({ from, to, words: `${eventWords(event)} ${clock(event.time, now)}` });
  }
  return Object.keys(MARKS)
    .filter((name) => marks[name]?.length)
    .map((name) => ({ name, many: MANY[name], kind: MARKS[name], marks: marks[name].sort((a, b) => a.from - b.from) }));
}

/** An event in a sentence. @param {RunEvent} event */
export function eventWords({ kind, step, from_step, count: number }) {
  switch (kind) {
    case "resumed":
      return `A process opened the run again at step ${count(step)}.`;
    case "rewound":
      return from_step === null
        ? `Rewound to step ${count(step)}.`
        : `Rewound from step ${count(from_step)} to step ${count(step)}.`;
    case "taken_over":
      return `Another process took the run over at step ${count(step)}.`;
    case "resized":
      return `From step ${count(step)} on, the run has ${number === null ? "another number of ranks" : counted(number, "rank")}.`;
    case "fallback":
      return `The daemon did not answer: ${number === null ? "steps" : counted(number, "step")} from step ${count(step)} on at learning rates of the client's fallback.`;
    default:
      return `${kind} at step ${count(step)}.`;
  }
}

/** @param {RunRecord} record @returns {Mark[]} */
function heldMarks(record) {
  return record.held.flatMap((number, index) => {
    if (!number) return [];
    const [from, to] = span(record, index);
    const where = from === to ? `Step ${count(from)}` : `${counted(number, "step")} of ${count(from)} to ${count(to)}`;
    return [
      {
        from,
        to: number === to - from + 1 ? to : from,
        number,
        words: `${where} held: the loss was not finite, so the last learning rate was kept.`,
      },
    ];
  });
}

/** @param {import("../../types.js").Update} one */
function updateWords(one) {
  const change = one.log_change ? `, learning rate times ${rate(Math.exp(one.log_change))}` : "";
  const validation = one.validation_loss === null ? "" : `, validation loss ${loss(one.validation_loss)}`;
  return `Meta update at step ${count(one.step)}: ${one.outcome}${change}${validation}.`;
}

/** @param {RunEvent} event @returns {[number, number]} */
function eventSpan({ kind, step, from_step, count: number }) {
  if (kind === "rewound") return [step, from_step ?? step];
  if (kind === "fallback") return [step, step + Math.max(1, number ?? 1) - 1];
  return [step, step];
}

/** @param {number} step @param {string} words @returns {Mark} */
const at = (step, words) => ({ from: step, to: step, words });

/** @param {string} sentence */
const lower = (sentence) => sentence[0].toLowerCase() + sentence.slice(1);
