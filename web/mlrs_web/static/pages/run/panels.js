/** The parts of a run's page below its curves. Those that have nothing to show are left out. */

import { fill, h } from "../../view/dom.js";
import { count, counted, duration } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { table } from "../../view/table.js";
import { timeNode } from "../../view/times.js";
import { treeNode } from "../../view/tree.js";
import { MARKS } from "../../view/words.js";
import { glyph } from "../../charts/glyphs.js";
import { eventWords } from "./marks.js";
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

/** @param {import("../../types.js").Ranks} ranks */
function ranksPanel({ step, reported, waiting_s, misses, world_size }) {
  const missing = Array.from({ length: world_size }, (_, rank) => rank).filter((rank) => !reported.includes(rank));
  const state =
    reported.length === 0
      ? `No rank has reported step ${count(step)} yet.`
      : `${count(reported.length)} of ${counted(world_size, "rank")} have reported step ${count(step)}${waiting_s === null ? "" : `; the first of them has waited for ${duration(waiting_s)}`}.`;
  const late =
    reported.length > 0 && missing.length > 0
      ? h(
          "p",
          {},
          `Missing: ${missing.length === 1 ? "rank" : "ranks"} ${missing.slice(0, 20).join(", ")}${missing.length > 20 ? " …" : ""}.`,
        )
      : null;
  const most = Math.max(1, ...misses.map((one) => one.steps));
  const rows = misses.map((one) => {
    const bar = h("span", { class: "bar" }, h("span", { class: "bar-fill warn" }));
    /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${(100 * one.steps) / most}%`;
    return [`rank ${one.rank}`, counted(one.steps, "step"), bar];
  });
  const stragglers = rows.length
    ? table(
        "Ranks that were missing when a step was answered without them",
        [{ title: "rank" }, { title: "missing in", class: "number" }, { title: "", class: "wide" }],
        rows,
        { shown: true },
      )
    : h("p", { class: "quiet" }, "No step was answered without a rank, as far as the daemon remembers.");
  return panel("Ranks and stragglers", state, late, stragglers);
}

/** The settings, without what the memory decided: that stands at "why". @param {Record<string, any>} config */
function configPanel({ recalled: _, ...config }) {
  const none = h("p", {}, "All settings have their defaults.");
  return panel("Config", null, Object.keys(config).length ? treeNode(config) : none);
}
