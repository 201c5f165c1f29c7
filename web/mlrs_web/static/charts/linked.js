/** Two charts over the same steps, losses above learning rates, with their controls: zoom, log axes, smoothing. */

import { setQuery } from "../router.js";
import { fill, h } from "../view/dom.js";
import { Chart } from "./chart.js";

/** @typedef {import("./chart.js").Picture} Picture */
/** @typedef {{smoothing: number, logLoss: boolean | null, logRate: boolean | null, view: [number, number] | null}} Look `null`: not chosen */

/**
 * @typedef {object} LinkedSettings
 * @property {URLSearchParams} query the address's query, in which the look is kept
 * @property {AbortSignal} signal
 * @property {string} key charts with the same key share their cursor
 * @property {() => [number, number]} whole the whole range of x
 * @property {() => void} onlook the look has changed: show the charts again
 * @property {() => void} onview the range of x has changed: read what it needs
 * @property {(index: number | null) => import("../view/dom.js").Child[]} readout the values at the cursor
 * @property {(href: string) => void} [onopen]
 */

/** @param {LinkedSettings} settings */
export function linkedCharts(settings) {
  const { query, signal, key, onlook } = settings;
  const look = lookOf(query);
  const changed = () => (keepLook(look, query), onlook());
  /** @param {[number, number] | null} view */
  const zoom = (view) => {
    look.view = view && clipped(view, settings.whole());
    changed();
    settings.onview();
  };
  const zoomBy = (/** @type {number} */ factor) => zoom(scaled(look.view ?? settings.whole(), factor));
  const readout = h("p", { class: "readout" });
  let pointed = /** @type {number | null} */ (null);
  const oncursor = (/** @type {number | null} */ index) => fill(readout, ...settings.readout((pointed = index)));
  const shared = {
    sync: key,
    xLabel: "step",
    oncursor,
    onzoom: (/** @type {number} */ from, /** @type {number} */ to) => zoom([from, to]),
    onreset: () => zoom(null),
    onopen: settings.onopen,
  };
  const loss = new Chart({ ...shared, label: "Loss over steps", yLabel: "loss", height: 330 }, signal);
  const rate = new Chart(
    { ...shared, label: "Learning rate over steps", yLabel: "learning rate", height: 210 },
    signal,
  );
  const logLoss = toggle("log loss", (on) => ((look.logLoss = on), changed()));
  const logRate = toggle("log learning rate", (on) => ((look.logRate = on), changed()));
  const zooms = zoomButtons(zoomBy, () => zoom(null));
  const looks = [smoothingNode(look, changed), logLoss.node, logRate.node, zooms.node];
  return {
    look,
    controls: h("div", { class: "controls", role: "group", "aria-label": "How the charts look" }, ...looks),
    readout,
    loss,
    rate,
    node: h("div", { class: "linked" }, loss.node, rate.node),
    /** @param {{loss: Picture, rate: Picture, log: {loss: boolean, rate: boolean}}} pictures with what is logarithmic where the reader chose nothing */
    show(pictures) {
      const logs = { loss: look.logLoss ?? pictures.log.loss, rate: look.logRate ?? pictures.log.rate };
      logLoss.set(logs.loss);
      logRate.set(logs.rate);
      zooms.set(look.view !== null);
      const view = look.view ?? settings.whole();
      loss.show({ ...pictures.loss, view, logY: logs.loss });
      rate.show({ ...pictures.rate, view, logY: logs.rate });
      fill(readout, ...settings.readout(pointed));
    },
    zoom,
    zoomBy,
    toggleLogLoss: () => logLoss.node.click(),
  };
}

/** @param {URLSearchParams} query @returns {Look} */
function lookOf(query) {
  const [from, to] = [Number(query.get("from")), Number(query.get("to"))];
  const flag = (/** @type {string} */ name) => (query.has(name) ? query.get(name) === "1" : null);
  const smoothing = Math.min(0.99, Math.max(0, Number(query.get("smooth")) || 0));
  return {
    smoothing,
    logLoss: flag("log-loss"),
    logRate: flag("log-lr"),
    view: query.has("to") && to > from ? [from, to] : null,
  };
}

/** @param {Look} look @param {URLSearchParams} query */
function keepLook(look, query) {
  const values = {
    smooth: look.smoothing || null,
    "log-loss": look.logLoss,
    "log-lr": look.logRate,
    from: look.view?.[0],
    to: look.view?.[1],
  };
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined) query.delete(name);
    else query.set(name, typeof value === "boolean" ? String(Number(value)) : String(Number(value.toPrecision(9))));
  }
  setQuery(query);
}

/** @param {[number, number]} view @param {[number, number]} whole @returns {[number, number] | null} */
function clipped([from, to], whole) {
  const [low, high] = [Math.max(from, whole[0]), Math.min(to, whole[1])];
  return low <= whole[0] && high >= whole[1] ? null : high > low ? [low, high] : null;
}

/** @param {[number, number]} view @param {number} factor @returns {[number, number]} */
function scaled([from, to], factor) {
  const [middle, half] = [(from + to) / 2, ((to - from) / 2) * factor];
  return [middle - half, middle + half];
}

/** @param {Look} look @param {() => void} changed */
function smoothingNode(look, changed) {
  const shown = h("output", {}, words(look.smoothing));
  const slider = h("input", {
    type: "range",
    min: 0,
    max: 0.99,
    step: 0.01,
    value: look.smoothing,
    "aria-label": "Smoothing",
  });
  slider.addEventListener("input", () => {
    look.smoothing = Number(slider.value);
    fill(shown, words(look.smoothing));
    changed();
  });
  return h(
    "label",
    { class: "smoothing", title: "An exponential moving average of the losses" },
    "smoothing",
    slider,
    shown,
  );
}

/** @param {number} smoothing */
const words = (smoothing) => (smoothing ? smoothing.toFixed(2) : "none");

/** @param {string} word @param {(on: boolean) => void} onchange */
function toggle(word, onchange) {
  const box = h("input", { type: "checkbox", onchange: () => onchange(box.checked) });
  return { node: h("label", { class: "check" }, box, word), set: (/** @type {boolean} */ on) => (box.checked = on) };
}

/** @param {(factor: number) => void} zoomBy @param {() => void} onall */
function zoomButtons(zoomBy, onall) {
  const title = "Double click on a chart does the same";
  const all = h("button", { class: "button small", onclick: onall, title }, "All steps");
  const out = button("−", "Zoom out", () => zoomBy(2));
  const into = button("+", "Zoom in; dragging over a chart does the same", () => zoomBy(0.5));
  return {
    node: h("span", { class: "zoom", role: "group", "aria-label": "Zoom" }, out, into, all),
    /** @param {boolean} zoomed whether there is more to show */
    set(zoomed) {
      all.disabled = !zoomed;
    },
  };
}

/** @param {string} sign @param {string} does @param {() => void} onclick */
const button = (sign, does, onclick) =>
  h("button", { class: "button small square", onclick, title: does, "aria-label": does }, sign);
