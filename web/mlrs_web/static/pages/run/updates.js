/** Meta updates: what each did to the learning rate, and the validation losses. */

import { Chart } from "../../charts/chart.js";
import { fill, h } from "../../view/dom.js";
import { count, loss, rate, significant } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { table } from "../../view/table.js";

/** @typedef {import("../../types.js").Update} Update */

const SHOWN = 100;

/** @param {AbortSignal} signal @param {string} key */
export function buildUpdates(signal, key) {
  const node = h("div", {});
  /** @type {{chart: Chart, lead: HTMLElement, list: HTMLElement} | null} */
  let parts = null;
  let state = "";
  return {
    node,
    /** @param {import("../../types.js").RunRecord} record @param {[number, number]} view */
    show(record, view) {
      const { updates } = record;
      const now = JSON.stringify([view, record.steps_per_bucket, updates]);
      if (now === state) return;
      state = now;
      if (!updates.length) {
        parts = null;
        return fill(node);
      }
      parts ??= build();
      fill(parts.lead, sentence(record));
      fill(parts.list, updatesTable(updates));
      parts.chart.show({
        xs: updates.map((one) => one.step),
        lines: [{ label: "change", colour: "series-3", width: 1.5, values: updates.map((one) => change(one)) }],
        rules: [{ y: 1, colour: "quiet", dash: [4, 4], words: "" }],
        view,
      });
    },
  };

  function build() {
    const chart = new Chart(
      {
        label: "The factor by which each meta update changed the learning rate",
        yLabel: "learning rate times",
        xLabel: "step",
        height: 170,
        sync: key,
      },
      signal,
    );
    const [lead, list] = [h("p", { class: "lead" }), h("div", {})];
    fill(
      node,
      panel("Meta updates", null, lead, chart.node, h("details", {}, h("summary", {}, "All meta updates shown"), list)),
    );
    return { chart, lead, list };
  }
}

/** @param {import("../../types.js").RunRecord} record */
function sentence({ updates, steps_per_bucket }) {
  const outcomes = new Map();
  for (const { outcome } of updates) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  const words = [...outcomes].map(([outcome, number]) => `${count(number)} ${outcome}`).join(", ");
  const only =
    steps_per_bucket > 1 ? ` At most one of each ${count(steps_per_bucket)} steps is shown; zoom in for all.` : "";
  return `${words}.${only}`;
}

/** @param {Update} one */
const change = (one) => (one.log_change === null ? null : Math.exp(one.log_change));

/** @param {Update[]} updates */
function updatesTable(updates) {
  const number = "number";
  const headings = [
    { title: "step", class: number },
    { title: "outcome" },
    { title: "alignment", class: number },
    { title: "validation loss", class: number },
    { title: "learning rate", class: number },
    { title: "times", class: number },
  ];
  const rows = updates
    .slice(-SHOWN)
    .toReversed()
    .map((one) => [
      count(one.step),
      one.outcome,
      significant(one.alignment, 3),
      loss(one.validation_loss),
      rate(one.learning_rate),
      significant(change(one), 4),
    ]);
  return table("Meta updates, the newest first", headings, rows, { cards: false });
}
