/** The head of a run's page: what it is, where it stands, and what its owner noted. */

import { address } from "../../api/client.js";
import { links } from "../../router.js";
import { fill, h } from "../../view/dom.js";
import { count, counted, loss, rate } from "../../view/format.js";
import { factsNode, policyNode, progressNode, statusNode, tagNodes } from "../../view/parts.js";
import { timeNode } from "../../view/times.js";

/** @typedef {import("../../types.js").Run} Run */

/** @param {Run} run @param {() => void} onpng */
export function buildHeader(run, onpng) {
  const status = h("span", {});
  const facts = h("div", {});
  const words = h("div", { class: "noted" });
  const actions = h(
    "div",
    { class: "actions" },
    h("a", { class: "button", href: links.compare([run.id]) }, "Compare"),
    h("a", { class: "button", href: address("/api/export", { id: run.id }), download: "" }, "CSV"),
    h("button", { class: "button", onclick: onpng, title: "Save the charts as a picture" }, "PNG"),
  );
  const node = h(
    "header",
    { class: "page-head" },
    h("div", { class: "title-line" }, h("h1", { class: "run-id" }, run.id), status, actions),
    words,
    facts,
  );
  return {
    node,
    /** @param {Run} now */
    show(now) {
      fill(status, statusNode(now.status));
      fill(
        words,
        now.note ? h("p", { class: "note" }, now.note) : null,
        Object.keys(now.tags).length ? h("p", { class: "tags" }, ...tagNodes(now.tags)) : null,
      );
      fill(facts, factsOf(now));
    },
  };
}

/** @param {Run} run */
function factsOf(run) {
  const behind = run.next_step - 1 - run.durable_step;
  const why = "Steps that the daemon has answered and not yet stored. If it crashes now, the client sends them again.";
  return factsNode([
    ["progress", progressNode(run)],
    ["loss", loss(run.last_loss)],
    ["learning rate", rate(run.last_learning_rate)],
    ["task", run.task && h("a", { href: links.task(run.task) }, run.task)],
    ["policy", policyNode(run)],
    ["optimizer", run.optimizer],
    ["batch size", run.batch_size === null ? null : count(run.batch_size)],
    ["ranks", run.world_size === null ? null : count(run.world_size)],
    ["stored", h("span", { title: why }, behind > 0 ? `${counted(behind, "step")} behind` : "all steps")],
    ["created", timeNode(run.create_time)],
    ["updated", timeNode(run.update_time)],
  ]);
}
