/** The list of runs. */

import { BACK, get, isAbort } from "../../api/client.js";
import { follow } from "../../api/stream.js";
import { addPageKeys } from "../../keys.js";
import { go, links } from "../../router.js";
import { fill, h } from "../../view/dom.js";
import { counted } from "../../view/format.js";
import { empty, problem, waiting } from "../../view/parts.js";
import { buildFilters } from "./filters.js";
import { RunList } from "./list.js";
import { listKeys } from "./list_keys.js";
import { refreshed } from "./merge.js";
import { Selection } from "./selection.js";
import { welcome } from "./welcome.js";

/** @typedef {import("./merge.js").Part} Part */
/** @typedef {import("../../types.js").Run} Run */

const PAGE_SIZE = 100;
const PATIENCE_MS = 250;

/** @param {import("../../types.js").Page} page */
export async function show({ root, query, signal, session, setTitle }) {
  setTitle("Runs");
  const page = new RunsPage(query, signal, session);
  page.build(root);
  await page.read();
}

class RunsPage {
  /** @type {Part} */
  #part = { runs: [], cursor: null };
  #reading = new AbortController();
  #readingMore = false;

  /** @param {URLSearchParams} query @param {AbortSignal} signal @param {import("../../router.js").Session} session */
  constructor(query, signal, session) {
    this.signal = signal;
    this.session = session;
    this.filters = buildFilters(query, signal, () => void this.read());
    this.selection = new Selection(() => this.list.redraw());
    this.list = new RunList({ signal, selection: this.selection, onend: () => void this.#readMore() });
    this.below = h("div", { class: "below-list" });
    this.total = h("p", { class: "list-count", role: "status" });
    document.addEventListener(BACK, () => this.#part.runs.length || void this.read(), { signal });
  }

  /** @param {HTMLElement} root */
  build(root) {
    const { below, filters, list, selection, total } = this;
    fill(root, h("h1", { class: "unseen" }, "Runs"), filters.node, total, list.node, below, selection.node);
    const compare = () => selection.canCompare && go(links.compare(selection.ids));
    addPageKeys(listKeys({ filters, list, compare }));
  }

  /** Reads the list from its beginning, as the filters say, and follows it. */
  async read() {
    this.#reading.abort();
    this.#reading = new AbortController();
    const now = this.#now;
    const patience = setTimeout(() => this.#part.runs.length || fill(this.below, waiting()), PATIENCE_MS);
    try {
      this.#part = await get("/api/runs", this.#query(), now);
      this.#display();
      this.list.top();
      follow("/api/live-runs", () => this.#query(), { runs: (first) => this.#refresh(first) }, now);
    } catch (error) {
      if (isAbort(error)) return;
      this.#part = { runs: [], cursor: null };
      this.#display();
      fill(this.below, problem(/** @type {Error} */ (error)));
    } finally {
      clearTimeout(patience);
    }
  }

  get #now() {
    return AbortSignal.any([this.signal, this.#reading.signal]);
  }

  #query() {
    return { ...this.filters.values(), size: PAGE_SIZE };
  }

  /** @param {Part} first */
  #refresh(first) {
    this.#part = refreshed(this.#part, first, this.list.isPointedAt());
    this.#display();
  }

  async #readMore() {
    const { runs, cursor } = this.#part;
    if (this.#readingMore || !cursor) return;
    this.#readingMore = true;
    const now = this.#now;
    try {
      const more = /** @type {Part} */ (await get("/api/runs", { ...this.#query(), cursor }, now));
      const known = new Set(this.#part.runs.map((run) => run.id));
      this.#part = {
        runs: [...this.#part.runs, ...more.runs.filter((run) => !known.has(run.id))],
        cursor: more.cursor,
      };
    } catch {
      // Scrolling on asks again.
    } finally {
      this.#readingMore = false;
    }
    if (!now.aborted && this.#part.runs.length > runs.length) this.#display();
  }

  #display() {
    const { runs, cursor } = this.#part;
    this.list.show(runs);
    const more = cursor ? " so far; scroll down for more" : "";
    fill(this.total, runs.length ? `${counted(runs.length, "run")}${more}` : null);
    if (!runs.length) fill(this.below, this.filters.any() ? this.#noMatch() : welcome(this.session));
    else
      fill(
        this.below,
        cursor ? h("button", { class: "button", onclick: () => void this.#readMore() }, "More runs") : null,
      );
  }

  #noMatch() {
    const clear = h("button", { class: "button", onclick: this.filters.clear }, "Clear the filters");
    return empty("No run matches", h("p", {}, "There may be runs that these filters leave out."), clear);
  }
}
