/** The table of runs. However many there are, only the rows on the screen and a few around them are in the page. */

import { THEME_CHANGED } from "../../theme.js";
import { h } from "../../view/dom.js";
import { buildRow } from "./row.js";
import { buildSamples } from "./samples.js";

/** @typedef {import("../../types.js").Run} Run */

const AROUND = 12;
const NEAR_END = 40;
const COLUMNS = [
  ["pick", "select"],
  ["spark", "loss over steps"],
  ["name", "run"],
  ["state", "status"],
  ["steps", "steps"],
  ["number", "loss"],
  ["number", "learning rate"],
  ["model", "policy"],
  ["labels", "tags"],
  ["when", "updated"],
];

export class RunList {
  /** @type {Run[]} */
  #runs = [];
  #current = -1;
  #frame = 0;
  /** @type {Map<string, ReturnType<typeof buildRow>>} */
  #rows = new Map();
  #before = spacer();
  #after = spacer();

  /** @param {{signal: AbortSignal, selection: import("./selection.js").Selection, onend: () => void}} settings */
  constructor({ signal, selection, onend }) {
    this.signal = signal;
    this.selection = selection;
    this.onend = onend;
    this.samples = buildSamples(signal, (id, sample) => this.#rows.get(id)?.draw(sample));
    this.body = h("tbody", {}, this.#before, this.#after);
    this.node = h(
      "table",
      { class: "runs", hidden: true },
      h("caption", { class: "unseen" }, "Runs"),
      head(),
      this.body,
    );
    this.redraw = this.redraw.bind(this);
    addEventListener("scroll", this.redraw, { signal, passive: true });
    addEventListener("resize", this.redraw, { signal });
    document.addEventListener(THEME_CHANGED, () => this.#inNewColours(), { signal });
  }

  /** @param {Run[]} runs */
  show(runs) {
    const id = this.#runs[this.#current]?.id;
    this.#runs = runs;
    this.#current = id === undefined ? -1 : runs.findIndex((run) => run.id === id);
    this.node.hidden = runs.length === 0;
    this.node.setAttribute("aria-rowcount", String(runs.length + 1));
    this.redraw();
  }

  /** Draws the rows with the next frame. */
  redraw() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /** Scrolls to the first row, if it is above the screen. */
  top() {
    if (this.body.getBoundingClientRect().top < 0) scrollTo(0, 0);
  }

  isPointedAt() {
    return this.body.matches(":hover") || this.body.contains(document.activeElement);
  }

  /** Moves to another row, and puts the focus on it. @param {number} by */
  move(by) {
    if (!this.#runs.length) return;
    this.#current = Math.max(0, Math.min(this.#runs.length - 1, this.#current + by));
    this.#reveal(this.#current);
    this.#draw();
    this.#currentRow?.focus();
  }

  open() {
    this.#currentRow?.open();
  }

  /** Selects the current row, or not any more. */
  toggle() {
    const id = this.#runs[this.#current]?.id;
    if (id !== undefined) this.#select(id, !this.selection.has(id));
  }

  get #currentRow() {
    return this.#rows.get(this.#runs[this.#current]?.id);
  }

  get #height() {
    return parseFloat(getComputedStyle(this.node).getPropertyValue("--row-height"));
  }

  /** @param {string} id @param {boolean} on */
  #select(id, on) {
    this.selection.set(id, on);
    this.#rows.get(id)?.select(on);
  }

  #draw() {
    this.#frame = 0;
    if (this.signal.aborted) return;
    const [first, last] = this.#onScreen();
    const shown = this.#runs.slice(first, last);
    const now = new Map();
    for (const [offset, run] of shown.entries()) {
      const row = this.#rows.get(run.id) ?? buildRow(run, (id, on) => this.#select(id, on));
      row.show(run, first + offset, this.selection.has(run.id), first + offset === this.#current);
      now.set(run.id, row);
    }
    for (const [id, row] of this.#rows) if (!now.has(id)) row.node.remove();
    this.#rows = now;
    this.#place(first);
    this.samples.want(shown);
    if (this.#runs.length && last > this.#runs.length - NEAR_END) this.onend();
  }

  /** The indexes of the first row to draw, and of the one after the last. */
  #onScreen() {
    const height = this.#height;
    const { top } = this.body.getBoundingClientRect();
    const within = (/** @type {number} */ index) => Math.max(0, Math.min(this.#runs.length, index));
    const first = within(Math.floor(-top / height) - AROUND);
    return [first, Math.max(first, within(Math.ceil((innerHeight - top) / height) + AROUND))];
  }

  /** Puts the rows in their order, and empty space in the place of those that are not drawn. @param {number} first */
  #place(first) {
    /** @type {Element} */
    let place = this.#before;
    for (const { node } of this.#rows.values()) {
      if (place.nextElementSibling !== node) place.after(node);
      place = node;
    }
    setSpace(this.#before, first * this.#height);
    setSpace(this.#after, (this.#runs.length - first - this.#rows.size) * this.#height);
  }

  /** Scrolls so far that a row is on the screen. @param {number} index */
  #reveal(index) {
    const height = this.#height;
    const top = this.body.getBoundingClientRect().top + index * height;
    const [least, most] = [140, innerHeight - height - 70];
    if (top < least) scrollBy(0, top - least);
    else if (top > most) scrollBy(0, top - most);
  }

  #inNewColours() {
    for (const row of this.#rows.values()) row.forget();
    this.samples.again([...this.#rows.keys()]);
  }
}

function head() {
  const cells = COLUMNS.map(([name, title]) => {
    const words = name === "pick" ? h("span", { class: "unseen" }, title) : title;
    return h("th", { scope: "col", class: `col-${name}` }, words);
  });
  return h("thead", {}, h("tr", {}, ...cells));
}

const spacer = () =>
  h("tr", { class: "spacer", "aria-hidden": "true", hidden: true }, h("td", { colspan: COLUMNS.length }));

/** @param {HTMLElement} node @param {number} pixels */
function setSpace(node, pixels) {
  node.style.height = `${pixels}px`;
  node.hidden = pixels <= 0;
}
