/** Up to 20 runs over each other. */

import { savePng } from "../../charts/image.js";
import { linkedCharts } from "../../charts/linked.js";
import { go, links, setQuery } from "../../router.js";
import { debounced, fill, h } from "../../view/dom.js";
import { counted } from "../../view/format.js";
import { empty } from "../../view/parts.js";
import { addForm } from "./add.js";
import { picturesOf, readoutOf, wholeOf } from "./curves.js";
import { finalsTable } from "./finals.js";
import { readAll, readAllNews } from "./reading.js";

/** @typedef {import("./reading.js").Compared} Compared */

const MOST = 20;
const REFRESH_MS = 5000;
const ZOOM_QUIET_MS = 50;

/** @param {import("../../types.js").Page} page */
export async function show({ root, query, signal, setTitle }) {
  setTitle("Compare");
  const ids = idsOf(query).slice(0, MOST);
  const add = addForm(ids, signal, (id) => go(links.compare([...ids, id])));
  if (ids.length === 0) return fill(root, nothing(add));
  const { runs, missing } = await readAll(ids, null, signal);
  const page = new ComparePage(ids, runs, query, signal);
  page.build(root, missing, add);
  if (runs.length) page.start();
}

/** Ids as `ids=a&ids=b`, or as `ids=a,b`: no id has a comma. @param {URLSearchParams} query */
const idsOf = (query) => [...new Set(query.getAll("ids").flatMap((one) => one.split(",").filter(Boolean)))];

/** @param {Node} add */
function nothing(add) {
  const list = h("a", { href: "/runs" }, "list of runs");
  const how = h("p", {}, "Select runs in the ", list, " and press “Compare”, or add them here by id.");
  return empty("Compare runs", how, add);
}

class ComparePage {
  /** @type {Compared[] | null} the parts that a zoom shows, in finer buckets */
  #zoomed = null;

  /** @param {string[]} ids @param {Compared[]} runs @param {URLSearchParams} query @param {AbortSignal} signal */
  constructor(ids, runs, query, signal) {
    this.ids = ids;
    this.whole = runs;
    this.query = query;
    this.signal = signal;
    this.align = query.get("x") === "share" ? "share" : "step";
    this.table = h("div", {});
    const readZoom = debounced(() => void this.#readZoom(), ZOOM_QUIET_MS);
    this.charts = linkedCharts({
      query,
      signal,
      key: "compare",
      whole: () => wholeOf(this.whole, this.align),
      onlook: () => this.#draw(),
      onview: readZoom,
      readout: (index) => readoutOf(this.#shown, this.align, this.#view, index),
    });
  }

  /** @param {HTMLElement} root @param {string[]} missing @param {Node} add */
  build(root, missing, add) {
    const { charts, ids, table, whole } = this;
    const png = h(
      "button",
      { class: "button", title: "Save the charts as a picture", onclick: () => this.#savePng() },
      "PNG",
    );
    const title = h("h1", {}, `Comparison of ${counted(whole.length, "run")}`);
    const absent = missing.length
      ? h("p", { class: "warning", role: "status" }, `Not found: ${missing.join(", ")}`)
      : null;
    const controls = h("div", { class: "controls-line" }, this.#alignment(), charts.controls);
    const full = h("p", { class: "quiet" }, `At most ${MOST} runs can be compared.`);
    fill(
      root,
      h(
        "header",
        { class: "page-head" },
        h("div", { class: "title-line" }, title, h("div", { class: "actions" }, png)),
        absent,
      ),
      whole.length > 0 &&
        h("section", { class: "panel curves", "aria-label": "Curves" }, controls, charts.node, charts.readout),
      h("section", { class: "panel", "aria-label": "Runs" }, table, ids.length < MOST ? add : full),
    );
  }

  start() {
    this.#drawAll();
    if (this.charts.look.view) void this.#readZoom();
    setTimeout(() => void this.#refresh(), REFRESH_MS);
  }

  get #shown() {
    return this.#zoomed ?? this.whole;
  }

  get #view() {
    return this.charts.look.view ?? wholeOf(this.whole, this.align);
  }

  #draw() {
    this.charts.show(picturesOf(this.#shown, this.align, this.#view, this.charts.look.smoothing));
    this.charts.loss.label = `Losses of ${counted(this.whole.length, "run")}`;
  }

  #drawAll() {
    this.#draw();
    const remove = (/** @type {string} */ id) =>
      go(links.compare(this.ids.filter((one) => one !== id)), { replace: true });
    fill(this.table, finalsTable(this.whole, remove));
  }

  async #readZoom() {
    const { view } = this.charts.look;
    const read =
      view && (await readAll(this.ids, { of: this.whole, align: this.align, view }, this.signal).catch(() => null));
    if (view !== this.charts.look.view || this.signal.aborted) return;
    this.#zoomed = read && read.runs;
    this.#draw();
  }

  /** Reads what is new, again and again. */
  async #refresh() {
    if (this.signal.aborted) return;
    if (!document.hidden) {
      const runs = await readAllNews(this.whole, this.signal);
      if (this.signal.aborted) return;
      if (runs.some((one, index) => one.record !== this.whole[index].record)) {
        this.whole = runs;
        this.#drawAll();
      }
    }
    setTimeout(() => void this.#refresh(), REFRESH_MS);
  }

  #alignment() {
    const choose = (/** @type {string} */ value) => {
      this.align = value;
      this.query.set("x", value);
      setQuery(this.query);
      this.charts.zoom(null);
    };
    const one = (/** @type {string} */ value, /** @type {string} */ words) => {
      const checked = this.align === value;
      const box = h("input", { type: "radio", name: "align", value, checked, onchange: () => choose(value) });
      return h("label", { class: "check" }, box, words);
    };
    const both = [one("step", "steps"), one("share", "share of the horizon")];
    return h("fieldset", { class: "align" }, h("legend", {}, "over"), ...both);
  }

  #savePng() {
    const { loss, rate } = this.charts;
    const policy = (/** @type {Compared} */ { record }) => record.run.model ?? record.run.schedule ?? "";
    const key = this.whole.map((one) => ({ text: `${one.id} (${policy(one)})`, ...one.style }));
    const parts = [
      { title: "loss", canvas: loss.canvas },
      { title: "learning rate", canvas: rate.canvas },
    ];
    void savePng("comparison", parts, key);
  }
}
