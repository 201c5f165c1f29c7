/** The search for the learning rate to begin with: the loss after each trial over its learning rate. */

import { Chart } from "../../charts/chart.js";
import { fill, h } from "../../view/dom.js";
import { count, counted, loss, rate, significant } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { table } from "../../view/table.js";

/** @typedef {{learning_rate: number, steps: number, loss: number | null, status?: string}} Trial */

/** @param {AbortSignal} signal */
export function buildSearch(signal) {
  const node = h("div", {});
  /** @type {Chart | null} */
  let chart = null;
  let state = "";
  return {
    node,
    /** @param {any} search */
    show(search) {
      const now = JSON.stringify(search);
      if (now === state) return;
      state = now;
      if (!search || !search.trials.length) return fill(node);
      chart ??= new Chart(
        {
          label: "Loss after each trial over its learning rate",
          yLabel: "loss after the trial",
          xLabel: "learning rate of the trial's first update",
          height: 240,
          xText: rate,
        },
        signal,
      );
      fill(node, panel("Search for the learning rate", sentence(search), chart.node, trialsTable(search)));
      chart.show(picture(search));
    },
  };
}

/** @param {any} search */
function sentence(search) {
  const made = search.trials.filter((/** @type {Trial} */ one) => one.steps > 0).length;
  const found = foundOf(search);
  const result =
    found === null
      ? "the search is under way"
      : `found ${rate(found.learning_rate)}${found.octaves ? `, within about ${significant(found.octaves, 2)} octaves` : ""}`;
  return `${counted(made, "trial")}: ${result}.`;
}

/** What a search found, if it has ended. @param {any} search @returns {{learning_rate: number, octaves?: number} | null} */
function foundOf({ found }) {
  if (typeof found === "number") return { learning_rate: found };
  return found?.learning_rate ? found : null;
}

/** @param {any} search @returns {import("../../charts/chart.js").Picture} */
function picture(search) {
  const trials = /** @type {Trial[]} */ (search.trials);
  const made = trials.filter((one) => one.steps > 0);
  const ended = made.filter((one) => one.loss !== null).sort((a, b) => a.learning_rate - b.learning_rate);
  const found = foundOf(search);
  const rates = [...made.map((one) => one.learning_rate), ...(found ? [found.learning_rate] : [])];
  const points = ended.map((one) => ({
    x: one.learning_rate,
    y: /** @type {number} */ (one.loss),
    shape: /** @type {const} */ ("circle"),
    colour: "series-1",
    words: `Trial at ${rate(one.learning_rate)}, ${counted(one.steps, "step")}: loss ${loss(one.loss)}`,
  }));
  const diverged = made
    .filter((one) => one.loss === null)
    .map((one) => ({
      x: one.learning_rate,
      colour: "bad",
      dash: [2, 3],
      words: `The trial at ${rate(one.learning_rate)} diverged`,
    }));
  const start = trials
    .filter((one) => one.steps === 0 && one.loss !== null)
    .map((one) => ({
      y: /** @type {number} */ (one.loss),
      colour: "quiet",
      dash: [6, 4],
      words: `Loss at the start: ${loss(one.loss)}`,
    }));
  const chosen = found
    ? [{ x: found.learning_rate, colour: "good", words: `Chosen: ${rate(found.learning_rate)}` }]
    : [];
  return {
    xs: ended.map((one) => one.learning_rate),
    lines: [{ label: "loss", colour: "series-1", width: 1.5, values: ended.map((one) => one.loss) }],
    points,
    rules: [...start, ...diverged, ...chosen],
    view: [Math.min(...rates) / 1.6, Math.max(...rates) * 1.6],
    logX: true,
  };
}

/** @param {any} search */
function trialsTable(search) {
  const trials = /** @type {Trial[]} */ (search.trials);
  const least = Math.min(...trials.filter((one) => one.steps > 0).map((one) => one.loss ?? Infinity));
  const outcome = (/** @type {Trial} */ one) =>
    one.loss === null
      ? "diverged"
      : one.steps === 0
        ? "the loss at the start"
        : one.loss === least
          ? "lowest loss"
          : "";
  const rows = trials.map((one, index) => [
    count(index + 1),
    one.steps ? rate(one.learning_rate) : "–",
    count(one.steps),
    loss(one.loss),
    outcome(one),
  ]);
  const headings = [
    { title: "trial", class: "number" },
    { title: "learning rate", class: "number" },
    { title: "steps", class: "number" },
    { title: "loss", class: "number" },
    { title: "" },
  ];
  return h(
    "details",
    {},
    h("summary", {}, "All trials"),
    table("Trials of the search", headings, rows, { cards: false }),
  );
}
