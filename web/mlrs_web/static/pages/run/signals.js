/** The signals that came with a run's observations, one small chart each, on the steps of the curves. */

import { middles } from "../../api/record.js";
import { Chart } from "../../charts/chart.js";
import { spansDecades } from "../../charts/scales.js";
import { fill, h } from "../../view/dom.js";
import { words } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { SIGNALS } from "../../view/words.js";

/** @param {AbortSignal} signal @param {string} key */
export function buildSignals(signal, key) {
  /** @type {Map<string, Chart>} */
  const charts = new Map();
  const grid = h("div", { class: "small-charts" });
  const whole = panel(
    "Signals",
    "What the training measured of its optimizer's steps, and sent with its losses. They are of the step before.",
    grid,
  );
  const node = h("div", {});
  return {
    node,
    /** @param {import("../../types.js").RunRecord} record @param {[number, number]} view */
    show(record, view) {
      const names = Object.keys(record.signals).filter((name) => record.signals[name].length);
      if (names.length === 0) return fill(node);
      if (!whole.isConnected) fill(node, whole);
      const steps = middles(record);
      for (const name of names) {
        // Most steps of a long run have no signals: the line goes from one that has some to the next.
        const xs = record.signals[name].map(([index]) => steps[index]);
        const values = record.signals[name].map(([, value]) => value);
        const line = { label: name, colour: "series-3", width: 1.5, values };
        chartOf(name).show({ xs, lines: [line], view, logY: spansDecades(values) });
      }
    },
  };

  /** @param {string} name */
  function chartOf(name) {
    let chart = charts.get(name);
    if (!chart) {
      const label = SIGNALS[name] ?? words(name);
      chart = new Chart({ label: `${label} over steps`, yLabel: "", xLabel: "step", height: 150, sync: key }, signal);
      charts.set(name, chart);
      grid.append(h("figure", {}, h("figcaption", {}, label), chart.node));
    }
    return chart;
  }
}
