/** The parts of a run's page below its curves. Those that have nothing to show are left out. */

import { fill, h } from "../../view/dom.js";
import { count } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { table } from "../../view/table.js";
import { timeNode } from "../../view/times.js";
import { treeNode } from "../../view/tree.js";
import { MARKS } from "../../view/words.js";
import { glyph } from "../../charts/glyphs.js";
import { eventWords } from "./marks.js";
import { ranksPanel } from "./ranks.js";
import { buildSearch } from "./search.js";
import { buildSignals } from "./signals.js";
import { buildUpdates } from "./updates.js";

/** @typedef {import("../../types.js").RunRecord} RunRecord */

const SHOWN_EVENTS = 50;

/** @param {{signal: AbortSignal, key: string, zoom: (view: [number, number] | null) => void}} settings */
export function buildPanels({ signal, key, zoom }) {
  const boxes = { why: h("div", {}), events: h("div", {}), ranks: h("div", {}), config: h("div", {}) };
  const search = buildSearch(signal);
  const signals = buildSignals(signal, key);
  const updates = buildUpdates(signal, key);
  let state = "";
  return {
    node: h(
      "div",
      { class: "panels" },
      boxes.why,
      search.node,
      boxes.ranks,
      updates.node,
      signals.node,
      boxes.events,
      boxes.config,
    ),
    /** @param {any} details */
    showDetails(details) {
      const now = JSON.stringify([details.why, details.events, details.config, details.ranks]);
      search.show(details.search);
      if (now === state) return;
      state = now;
      fill(boxes.why, details.why ? whyPanel(details.why) : null);
      fill(boxes.events, details.events.length ? eventsPanel(details.events, zoom) : null);
      fill(boxes.ranks, details.ranks ? ranksPanel(details.ranks) : null);
      fill(boxes.config, configPanel(details.config));
    },
    /** @param {RunRecord} record @param {[number, number]} view the range of steps that the curves show */
    showRecord(record, view) {
      signals.show(record, view);
      updates.show(record, view);
    },
  };
}

/** @param {string} why */
const whyPanel = (why) => panel("Why it began as it did", null, h("p", { class: "why" }, why));

/** @param {import("../../types.js").RunEvent[]} events @param {(view: [number, number] | null) => void} zoom */
function eventsPanel(events, zoom) {
  const newest = events.toReversed().slice(0, SHOWN_EVENTS);
  const near = (/** @type {number} */ step) =>
    h(
      "button",
      { class: "link", title: "Zoom to this step", onclick: () => zoom([Math.max(0, step - 50), step + 50]) },
      count(step),
    );
  const rows = newest.map((event) => [
    timeNode(event.time),
    h("span", { class: "kind" }, MARKS[event.kind] && glyph(MARKS[event.kind]), MARKS[event.kind]?.word ?? event.kind),
    near(event.step),
    eventWords(event),
  ]);
  const lead = events.length > SHOWN_EVENTS ? `The newest ${SHOWN_EVENTS} of ${count(events.length)}.` : null;
  return panel(
    "What happened",
    lead,
    table(
      "Events of the run, the newest first",
      [{ title: "when" }, { title: "kind" }, { title: "step", class: "number" }, { title: "what" }],
      rows,
    ),
  );
}

/** The settings, without what the memory decided: that stands at "why". @param {Record<string, any>} config */
function configPanel({ recalled: _, ...config }) {
  const none = h("p", {}, "All settings have their defaults.");
  return panel("Config", null, Object.keys(config).length ? treeNode(config) : none);
}
