/** The page of a run. */

import { get } from "../../api/client.js";
import { merged } from "../../api/record.js";
import { isOutgrown, readRecord } from "../../api/reading.js";
import { follow } from "../../api/stream.js";
import { savePng } from "../../charts/image.js";
import { linkedCharts } from "../../charts/linked.js";
import { addPageKeys } from "../../keys.js";
import { debounced, fill, h } from "../../view/dom.js";
import { loss } from "../../view/format.js";
import { picturesOf, readoutOf, validationPoints } from "./curves.js";
import { buildHeader } from "./header.js";
import { buildLegend } from "./legend.js";
import { lanesOf } from "./marks.js";
import { buildPanels } from "./panels.js";

/** @typedef {import("../../types.js").RunRecord} RunRecord */

const DETAILS_EVERY_MS = 5000;
const ZOOM_QUIET_MS = 700;

/** @param {import("../../types.js").Page} page */
export async function show({ root, query, signal, setTitle }) {
  const id = query.get("id") ?? "";
  setTitle(id);
  const [details, whole] = await Promise.all([get("/api/run", { id }, signal), readRecord({ id }, signal)]);
  const page = new RunPage(id, details, whole, query, signal);
  page.build(root);
  page.start();
}

class RunPage {
  /** @type {RunRecord | null} the part that a zoom shows, in finer buckets */
  #zoomed = null;
  #detailsAt = Date.now();
  #detailsTimer = 0;
  #following = new AbortController();
  #zoomReading = new AbortController();

  /** @param {string} id @param {any} details @param {RunRecord} whole @param {URLSearchParams} query @param {AbortSignal} signal */
  constructor(id, details, whole, query, signal) {
    this.id = id;
    this.details = details;
    this.whole = whole;
    this.signal = signal;
    this.charts = linkedCharts({
      query,
      signal,
      key: `run-${id}`,
      whole: () => rangeOf(this.whole),
      onlook: () => this.#draw(),
      onview: () => this.#readZoom(),
      readout: (index) => readoutOf(this.#shown, index),
    });
    this.header = buildHeader(details.run, () => this.#savePng());
    this.legend = buildLegend(() => this.#draw());
    this.panels = buildPanels({ signal, key: `run-${id}`, zoom: this.charts.zoom });
    this.readZoomSoon = debounced(() => void this.#readZoom(), ZOOM_QUIET_MS);
  }

  /** @param {HTMLElement} root */
  build(root) {
    const { charts, header, legend, panels } = this;
    const curves = [charts.controls, charts.readout, legend.node, charts.node];
    fill(root, header.node, h("section", { class: "panel curves", "aria-label": "Curves" }, ...curves), panels.node);
    addPageKeys([
      { key: "0", does: "Show all steps", run: () => charts.zoom(null) },
      { key: "+", does: "Zoom in", run: () => charts.zoomBy(0.5) },
      { key: "-", does: "Zoom out", run: () => charts.zoomBy(2) },
      { key: "l", does: "Loss on a logarithmic axis, or not", run: charts.toggleLogLoss },
    ]);
  }

  start() {
    this.#drawAll();
    if (this.charts.look.view) void this.#readZoom();
    this.#follow();
  }

  get #shown() {
    return this.#zoomed ?? this.whole;
  }

  #draw() {
    const { charts, details, legend, panels, whole } = this;
    const shown = this.#shown;
    const lanes = lanesOf(shown, details.events);
    legend.show(lanes, shown, validationPoints(shown).length > 0, charts.look.smoothing);
    charts.show(picturesOf(shown, charts.look.smoothing, legend.chosen(lanes)));
    const { next_step, last_loss } = whole.run;
    charts.loss.label = `Loss of ${this.id} over ${next_step} steps; the newest loss is ${loss(last_loss)}.`;
    panels.showRecord(shown, charts.look.view ?? rangeOf(whole));
  }

  #drawAll() {
    this.header.show(this.whole.run);
    this.panels.showDetails(this.details);
    this.#draw();
  }

  async #readZoom() {
    this.#zoomReading.abort();
    const { view } = this.charts.look;
    if (!view) {
      this.#zoomed = null;
      return this.#draw();
    }
    this.#zoomReading = new AbortController();
    const signal = AbortSignal.any([this.signal, this.#zoomReading.signal]);
    const part = { id: this.id, from: Math.max(0, Math.floor(view[0])), to: Math.ceil(view[1]) + 1 };
    try {
      this.#zoomed = await readRecord(part, signal);
      this.#draw();
    } catch {
      // The page was left or the zoom changed; if the daemon is away, what was shown stays.
    }
  }

  /** Reads the details again, now or, if that was done a moment ago, a little later. */
  #readDetailsSoon() {
    const wait = Math.max(0, this.#detailsAt + DETAILS_EVERY_MS - Date.now());
    this.#detailsTimer ||= setTimeout(() => void this.#readDetails(), wait);
  }

  async #readDetails() {
    if (this.signal.aborted) return;
    [this.#detailsAt, this.#detailsTimer] = [Date.now(), 0];
    this.details = await get("/api/run", { id: this.id }, this.signal).catch(() => this.details);
    if (!this.signal.aborted) this.#drawAll();
  }

  #follow() {
    this.#following.abort();
    this.#following = new AbortController();
    const signal = AbortSignal.any([this.signal, this.#following.signal]);
    const handlers = {
      record: (/** @type {RunRecord} */ news) => void this.#onRecord(news),
      run: (/** @type {import("../../types.js").Run} */ run) => this.#onRun(run),
    };
    follow("/api/live", (cursor) => ({ id: this.id, cursor: cursor ?? this.whole.cursor }), handlers, signal);
  }

  /** @param {RunRecord} news */
  async #onRecord(news) {
    const same = news.steps_per_bucket === this.whole.steps_per_bucket;
    if (same && !isOutgrown(this.whole)) this.whole = merged(this.whole, news);
    else {
      this.#following.abort();
      this.whole = await readRecord({ id: this.id }, this.signal).catch(() => this.whole);
      if (this.signal.aborted) return;
      this.#follow();
    }
    const { view } = this.charts.look;
    if (view && view[1] >= news.first_step) this.readZoomSoon();
    this.header.show(this.whole.run);
    this.#draw();
    this.#readDetailsSoon();
  }

  /** @param {import("../../types.js").Run} run */
  #onRun(run) {
    this.whole = { ...this.whole, run };
    this.header.show(run);
    this.#readDetailsSoon();
  }

  #savePng() {
    const { loss: losses, rate } = this.charts;
    const parts = [
      { title: "loss", canvas: losses.canvas },
      { title: "learning rate", canvas: rate.canvas },
    ];
    void savePng(this.id, parts, []);
  }
}

/** @param {RunRecord} record @returns {[number, number]} */
function rangeOf(record) {
  return [record.first_step, Math.max(record.end_step - 1, record.first_step + 1)];
}
