/** The runs that are selected, and what can be done with them. Nothing is selected at first. */

import { links } from "../../router.js";
import { fill, h } from "../../view/dom.js";
import { counted } from "../../view/format.js";

const MOST_COMPARED = 20;

export class Selection {
  /** @type {Set<string>} */
  #ids = new Set();

  /** @param {() => void} onclear */
  constructor(onclear) {
    this.words = h("span", {});
    this.compare = h("a", { class: "button primary" }, "Compare");
    const clear = () => {
      this.#ids.clear();
      this.#show();
      onclear();
    };
    const parts = [this.words, this.compare, h("button", { class: "button", onclick: clear }, "Clear")];
    this.node = h("div", { class: "selection", hidden: true, role: "region", "aria-label": "Selected runs" }, ...parts);
  }

  get ids() {
    return [...this.#ids];
  }

  get canCompare() {
    return this.#ids.size > 0 && this.#ids.size <= MOST_COMPARED;
  }

  /** @param {string} id */
  has(id) {
    return this.#ids.has(id);
  }

  /** @param {string} id @param {boolean} on */
  set(id, on) {
    if (on) this.#ids.add(id);
    else this.#ids.delete(id);
    this.#show();
  }

  #show() {
    const { size } = this.#ids;
    this.node.hidden = size === 0;
    const limit = size > MOST_COMPARED ? `; at most ${MOST_COMPARED} can be compared` : "";
    fill(this.words, `${counted(size, "run")} selected${limit}`);
    if (this.canCompare) this.compare.setAttribute("href", links.compare(this.ids));
    else this.compare.removeAttribute("href");
  }
}
