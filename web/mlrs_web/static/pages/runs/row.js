/** A row of the list of runs. */

import { drawSpark } from "../../charts/spark.js";
import { links } from "../../router.js";
import { fill, h } from "../../view/dom.js";
import { loss, rate } from "../../view/format.js";
import { policyNode, progressNode, statusNode, tagNodes } from "../../view/parts.js";
import { timeNode } from "../../view/times.js";

/** @typedef {import("../../types.js").Run} Run */

/** So many characters of an id are always shown: ids of a task often differ at their ends only. */
const TAIL = 8;
const SHOWN_TAGS = 2;

/** @param {Run} first @param {(id: string, on: boolean) => void} ontoggle */
export function buildRow(first, ontoggle) {
  const { id } = first;
  let state = "";
  /** @type {import("../../types.js").Sample | null} */
  let drawn = null;
  const box = h("input", { type: "checkbox", "aria-label": `Select ${id}`, onchange: () => ontoggle(id, box.checked) });
  const canvas = h("canvas", { class: "spark", "aria-hidden": "true" });
  const link = h(
    "a",
    { href: links.run(id), class: "run-link", title: id, "aria-label": id },
    h("span", { class: "id-head" }, id.slice(0, -TAIL)),
    h("span", { class: "id-tail" }, id.slice(-TAIL)),
  );
  const task = h("span", { class: "run-task" });
  const cells = {
    state: cell("state", "status"),
    steps: cell("steps", "steps"),
    loss: cell("number col-loss", "loss"),
    rate: cell("number col-rate", "learning rate"),
    model: cell("model", "policy"),
    labels: cell("labels", "tags"),
    when: cell("when", "updated"),
  };
  const node = h(
    "tr",
    {},
    h("td", { class: "col-pick" }, h("label", { class: "pick" }, box)),
    h("td", { class: "col-spark" }, canvas),
    h("th", { scope: "row", class: "col-name" }, link, task),
    ...Object.values(cells),
  );

  return {
    node,
    /** @param {Run} run @param {number} index @param {boolean} selected @param {boolean} current */
    show(run, index, selected, current) {
      node.setAttribute("aria-rowindex", String(index + 2));
      node.classList.toggle("current", current);
      this.select(selected);
      const now = JSON.stringify(run);
      if (now === state) return;
      state = now;
      fill(task, run.task ? h("a", { href: links.task(run.task), title: `Task ${run.task}` }, run.task) : null);
      fill(cells.state, statusNode(run.status));
      fill(cells.steps, progressNode(run));
      fill(cells.loss, loss(run.last_loss));
      fill(cells.rate, rate(run.last_learning_rate));
      fill(cells.model, policyNode(run));
      fill(cells.labels, fewTags(run.tags));
      fill(cells.when, timeNode(run.update_time));
    },
    /** @param {boolean} on */
    select(on) {
      box.checked = on;
      node.classList.toggle("selected", on);
    },
    /** @param {import("../../types.js").Sample} sample */
    draw(sample) {
      if (sample === drawn) return;
      drawn = sample;
      drawSpark(/** @type {any} */ (canvas), sample, "series-1");
    },
    forget: () => (drawn = null),
    focus: () => link.focus({ preventScroll: true }),
    open: () => link.click(),
  };
}

/** The first tags, and how many more there are. @param {Record<string, string>} tags */
function fewTags(tags) {
  const nodes = tagNodes(tags);
  const more = nodes.length - SHOWN_TAGS;
  const all = Object.entries(tags).map((pair) => pair.join(": "));
  const rest = more > 0 ? h("span", { class: "quiet", title: all.join("\n") }, `+${more}`) : null;
  return h("span", { class: "tags" }, ...nodes.slice(0, SHOWN_TAGS), rest);
}

/** @param {string} name @param {string} title */
const cell = (name, title) => h("td", { class: `col-${name}`, "data-title": title });
