/** A chart: lines and bands drawn by uPlot, points, rules and rows of marks over them, words on hover. */

import { THEME_CHANGED } from "../theme.js";
import { h, setText } from "../view/dom.js";
import { compact } from "../view/format.js";
import { uPlotOptions } from "./options.js";
import { lanesAt } from "./lanes.js";
import { overlayAt } from "./overlay.js";
import uPlot from "../vendor/uplot/uPlot.esm.js";

/**
 * @typedef {number | null} Num
 *
 * @typedef {object} Line
 * @property {string} label
 * @property {Num[]} values
 * @property {string} colour a name of the palette
 * @property {number[]} [dash]
 * @property {number} [width]
 * @property {number} [opacity]
 * @property {import("./glyphs.js").Shape | null} [marker]
 *
 * @typedef {{low: Num[], high: Num[], colour: string}} Band
 *
 * @typedef {object} Picture What a chart shows.
 * @property {number[]} xs ascending
 * @property {Line[]} lines
 * @property {Band[]} [bands]
 * @property {import("./overlay.js").Point[]} [points]
 * @property {import("./overlay.js").Rule[]} [rules]
 * @property {import("./lanes.js").Lane[]} [lanes]
 * @property {[number, number]} [view] the range of x; all of it, if left out
 * @property {boolean} [logX]
 * @property {boolean} [logY]
 * @property {boolean} [fromZero] whether the axis of y begins at 0
 * @property {string} [xLabel] instead of the chart's
 * @property {(value: number) => string} [xText] instead of the chart's
 *
 * @typedef {object} ChartSettings
 * @property {string} label what it shows, for people who cannot see it
 * @property {number} height in CSS pixels
 * @property {string} yLabel
 * @property {string} xLabel
 * @property {string} [sync] charts with the same key share their cursor
 * @property {(value: number) => string} [xText] the text of a tick of x
 * @property {(from: number, to: number) => void} [onzoom]
 * @property {() => void} [onreset]
 * @property {(index: number | null) => void} [oncursor]
 * @property {(href: string) => void} [onopen]
 */

/** @type {Set<Chart>} */
const shown = new Set();
document.addEventListener(THEME_CHANGED, () => shown.forEach((chart) => chart.redraw()));

export class Chart {
  /** @type {any} */
  #plot = null;
  /** @type {Picture} */
  #picture = { xs: [], lines: [] };
  /** What the present plot draws. One that was replaced may draw once more, what it was made for. */
  #drawn = { picture: this.#picture };
  #shape = "";
  /** @type {string | undefined} */
  #href;

  /** @param {ChartSettings} settings @param {AbortSignal} signal removes it */
  constructor(settings, signal) {
    this.settings = { xText: compact, ...settings };
    this.canvasBox = h("div", { class: "plot", role: "img", "aria-label": settings.label });
    this.tip = h("div", { class: "tip", hidden: true });
    this.node = h("div", { class: "chart" }, this.canvasBox, this.tip);
    this.canvasBox.style.minHeight = `${settings.height}px`;
    const sizes = new ResizeObserver(() => this.#resize());
    sizes.observe(this.node);
    shown.add(this);
    this.canvasBox.addEventListener("mousemove", (event) => this.#hover(event));
    this.canvasBox.addEventListener("mouseleave", () => this.#say(null));
    this.canvasBox.addEventListener("click", () => this.#href && settings.onopen?.(this.#href));
    signal.addEventListener("abort", () => {
      sizes.disconnect();
      shown.delete(this);
      this.#plot?.destroy();
      this.#plot = null;
    });
  }

  /** Shows a picture. @param {Picture} picture */
  show(picture) {
    const shape = JSON.stringify([
      picture.lines.map(({ values, ...look }) => look),
      (picture.bands ?? []).map((band) => band.colour),
      picture.logX,
      picture.logY,
      (picture.lanes ?? []).length,
      picture.xLabel,
    ]);
    this.#picture = picture;
    if (!this.#plot || shape !== this.#shape) this.#rebuild();
    else {
      this.#drawn.picture = picture;
      this.#plot.setData(this.#data(), false);
      this.#plot.redraw(false, true);
      const [min, max] = viewOf(picture);
      this.#plot.setScale("x", { min, max });
    }
    this.#shape = shape;
  }

  /** Draws again, in the present colours. */
  redraw() {
    this.#plot?.redraw(false, true);
  }

  /** The drawn chart; `null` before there is one. @returns {HTMLCanvasElement | null} */
  get canvas() {
    return this.#plot?.ctx.canvas ?? null;
  }

  /** @param {string} label */
  set label(label) {
    this.canvasBox.setAttribute("aria-label", label);
  }

  #rebuild() {
    const width = Math.floor(this.node.clientWidth);
    if (width === 0) return;
    this.#plot?.destroy();
    const drawn = (this.#drawn = { picture: this.#picture });
    const options = uPlotOptions(
      this.settings,
      () => drawn.picture,
      () => viewOf(drawn.picture),
      width,
    );
    this.#plot = new /** @type {any} */ (uPlot)(options, this.#data(), this.canvasBox);
  }

  #resize() {
    const width = Math.floor(this.node.clientWidth);
    if (width === 0) return;
    if (!this.#plot) this.#rebuild();
    else if (this.#plot.width !== width) this.#plot.setSize({ width, height: this.#plot.height });
  }

  /** @returns {any[]} */
  #data() {
    const { xs, lines, bands = [], logY } = this.#picture;
    // A logarithmic axis has no place for 0 and below.
    const fit = (/** @type {Num[]} */ values) =>
      logY ? values.map((one) => (one !== null && one > 0 ? one : null)) : values;
    return [xs, ...bands.flatMap((band) => [fit(band.high), fit(band.low)]), ...lines.map((line) => fit(line.values))];
  }

  /** @param {MouseEvent} event */
  #hover(event) {
    const plot = this.#plot;
    if (!plot) return;
    const box = plot.over.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const { points = [], rules = [], lanes = [] } = this.#picture;
    if (top < 0) {
      const words = lanesAt(plot, lanes, left, top);
      return this.#say(words ? { words, left, top } : null);
    }
    this.#say(overlayAt(plot, points, rules, left, top));
  }

  /** @param {{words: string, href?: string, left: number, top: number} | null} hit */
  #say(hit) {
    this.#href = hit?.href;
    this.tip.hidden = hit === null;
    this.canvasBox.classList.toggle("can-open", Boolean(hit?.href));
    if (!hit) return;
    setText(this.tip, hit.words);
    const over = this.#plot.over.getBoundingClientRect();
    const own = this.node.getBoundingClientRect();
    const x = over.left - own.left + hit.left;
    const y = over.top - own.top + hit.top;
    const left = Math.max(4, Math.min(x - this.tip.offsetWidth / 2, own.width - this.tip.offsetWidth - 4));
    const above = y - this.tip.offsetHeight - 12;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${above >= -40 ? above : y + 14}px`;
  }
}

/** The range of x. @param {Picture} picture @returns {[number, number]} */
function viewOf({ xs, view, points = [] }) {
  if (view) return view;
  const all = xs.length ? [xs[0], xs[xs.length - 1]] : [];
  const [low, high] = [Math.min(...all, ...points.map((p) => p.x)), Math.max(...all, ...points.map((p) => p.x))];
  if (!Number.isFinite(low)) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}
