/** The table of final losses of the runs that are compared. */

import { links } from "../../router.js";
import { h } from "../../view/dom.js";
import { loss, rate } from "../../view/format.js";
import { lineKey, policyNode, progressNode, statusNode } from "../../view/parts.js";
import { table } from "../../view/table.js";

/** @typedef {import("./reading.js").Compared} Compared */

const LAST_SHARE = 0.05;

/** @param {Compared[]} runs @param {(id: string) => void} onremove */
export function finalsTable(runs, onremove) {
  const finals = runs.map(({ record }) => finalLoss(record));
  const validations = runs.map(({ record }) => record.validations.findLast((one) => one.loss !== null)?.loss ?? null);
  const [best, bestValidation] = [least(finals), least(validations)];
  const shown = validations.some((one) => one !== null);
  const headings = [
    { title: "run" },
    { title: "policy" },
    { title: "kind", hint: "Advised by a model, or after a hand-designed schedule" },
    { title: "status" },
    { title: "steps" },
    { title: "final loss", class: "number", hint: "The mean of the last twentieth of the steps made" },
    ...(shown ? [{ title: "validation loss", class: "number", hint: "The newest" }] : []),
    { title: "last rate", class: "number" },
    { title: "", class: "action" },
  ];
  const rows = runs.map(({ id, record: { run }, style }, index) => [
    h("span", { class: "keyed" }, lineKey(style), h("a", { href: links.run(id), class: "run-link" }, id)),
    policyNode(run),
    run.schedule ? "schedule" : "advised",
    statusNode(run.status),
    progressNode(run),
    marked(loss(finals[index]), finals[index] === best && best !== null),
    ...(shown
      ? [marked(loss(validations[index]), validations[index] === bestValidation && bestValidation !== null)]
      : []),
    rate(run.last_learning_rate),
    h(
      "button",
      { class: "button small", onclick: () => onremove(id), "aria-label": `Remove ${id} from the comparison` },
      "Remove",
    ),
  ]);
  return table("Final losses. Solid lines are advised runs, dashed lines are schedules.", headings, rows, {
    shown: true,
  });
}

/** The mean of the last twentieth of a run's buckets. @param {import("../../types.js").RunRecord} record */
function finalLoss(record) {
  const means = record.loss.mean;
  const last = means.slice(-Math.max(1, Math.round(means.length * LAST_SHARE))).filter((one) => one !== null);
  return last.length ? last.reduce((sum, one) => sum + one, 0) / last.length : null;
}

/** @param {(number | null)[]} values @returns {number | null} */
function least(values) {
  const known = values.filter((one) => one !== null);
  return known.length ? Math.min(...known) : null;
}

/** @param {string} text @param {boolean} best */
const marked = (text, best) =>
  best ? h("span", { class: "best" }, text, h("span", { class: "best-word" }, "best")) : text;
