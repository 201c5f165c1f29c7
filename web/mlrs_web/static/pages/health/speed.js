/** How many observations the daemon answers a second: the newest figure, and a chart of those since the page was opened. */

import { Chart } from "../../charts/chart.js";
import { fill, h } from "../../view/dom.js";
import { significant } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { addPoll, emptyRates } from "./rates.js";

const SHOWN_AT_LEAST_S = 60;

/** @param {AbortSignal} signal */
export function buildSpeed(signal) {
  const rates = emptyRates();
  const figure = h("p", { class: "big-number" });
  const settings = {
    label: "Answers a second",
    yLabel: "answers a second",
    xLabel: "seconds ago",
    height: 170,
    xText: (/** @type {number} */ value) => significant(Math.abs(value), 3),
  };
  const chart = new Chart(settings, signal);
  return {
    node: panel("Advice a second", null, figure, chart.node),
    /** @param {import("./rates.js").Status} status */
    add(status) {
      addPoll(rates, status);
      const newest = rates.perSecond.at(-1);
      const unit = h("span", { class: "quiet" }, " answers a second");
      fill(figure, ...(newest === undefined ? ["measuring …"] : [significant(newest, 3), unit]));
      const end = rates.times.at(-1) ?? 0;
      chart.show({
        xs: rates.times.map((time) => time - end),
        lines: [{ label: "answers a second", colour: "series-1", values: rates.perSecond }],
        view: [-Math.max(SHOWN_AT_LEAST_S, end - (rates.times[0] ?? end)), 0],
        fromZero: true,
      });
    },
  };
}
