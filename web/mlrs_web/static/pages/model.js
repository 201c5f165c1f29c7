/** The page of a model: where it comes from, what points at it, and which runs use it. */

import { get } from "../api/client.js";
import { links } from "../router.js";
import { fill, h } from "../view/dom.js";
import { bytes, count, loss, rate } from "../view/format.js";
import { factsNode, panel, progressNode, statusNode } from "../view/parts.js";
import { table } from "../view/table.js";
import { timeNode } from "../view/times.js";
import { treeNode } from "../view/tree.js";
import { aliasNodes } from "./models.js";

/** @typedef {import("./models.js").Model} Model */
/** @typedef {{time: number | null, model: string, cause: string}} Change */

/** @type {Record<string, string>} */
const CAUSES = { set: "set", promote: "promoted", rollback: "rolled back" };
const LISTED = 20;

/** @param {import("../types.js").Page} page */
export async function show({ root, query, signal, setTitle }) {
  const ref = query.get("ref") ?? "";
  const answer = await get("/api/model", { ref }, signal);
  const model = /** @type {Model} */ (answer.model);
  setTitle(model.ref);
  const facts = factsNode([
    ["aliases", aliasNodes(model.aliases)],
    ["architecture", model.architecture],
    ["made by", model.provenance?.method && String(model.provenance.method)],
    ["parameters", count(model.parameters)],
    ["snapshots", count(model.snapshots)],
    ["size", bytes(model.size_bytes)],
  ]);
  const head = h(
    "header",
    { class: "page-head" },
    h(
      "div",
      { class: "title-line" },
      h("h1", { class: "run-id" }, model.ref),
      h(
        "div",
        { class: "actions" },
        h("a", { class: "button", href: links.runs({ model: model.ref }) }, "All its runs"),
      ),
    ),
    facts,
    h("p", { class: "digest-line quiet" }, `SHA-256 ${model.digest}`),
  );
  fill(
    root,
    head,
    lineagePanel(model),
    answer.quality ? treePanel("Quality", "Figures that the model carries.", answer.quality) : null,
    changesPanel(answer.changes, model.ref),
    runsPanel(answer.runs),
    treePanel("Provenance", "How it was made.", model.provenance),
    treePanel("Architecture", null, model.architecture_fields),
  );
}

/** @param {Model} model */
function lineagePanel({ ref, provenance }) {
  const parent = provenance?.parent;
  const parentRef =
    typeof parent === "string"
      ? parent
      : (parent?.ref ?? (parent?.name && parent?.digest ? `${parent.name}@${parent.digest}` : null));
  if (!parentRef) return null;
  const from = ["runs", "updates"]
    .filter((name) => typeof provenance[name] === "number")
    .map((name) => `${count(provenance[name])} ${name}`);
  return panel(
    "Lineage",
    null,
    h(
      "ol",
      { class: "lineage" },
      h(
        "li",
        {},
        h("a", { href: links.model(parentRef) }, shortRef(parentRef)),
        from.length ? h("span", { class: "quiet" }, ` and ${from.join(", ")}`) : null,
      ),
      h("li", { "aria-current": "true" }, h("b", {}, ref)),
    ),
  );
}

/** @param {string} ref */
function shortRef(ref) {
  const [name, digest] = ref.split("@");
  return digest ? `${name}@${digest.slice(0, 12)}` : name;
}

/** @param {Record<string, Change[]>} changes @param {string} ref */
function changesPanel(changes, ref) {
  const all = Object.entries(changes).flatMap(([alias, list]) => list.map((one) => ({ alias, ...one })));
  if (!all.length) return null;
  all.sort((a, b) => (b.time ?? 0) - (a.time ?? 0));
  const rows = all.map(({ alias, time, model, cause }) => [
    time === null ? "as shipped" : timeNode(time),
    h("b", {}, alias),
    CAUSES[cause] ?? cause,
    model === ref
      ? h("span", { class: "best" }, shortRef(model), h("span", { class: "best-word" }, "this one"))
      : h("a", { href: links.model(model) }, shortRef(model)),
  ]);
  return panel(
    "Aliases, promotions and rollbacks",
    null,
    table(
      "Changes of the aliases that point here, the newest first",
      [{ title: "when" }, { title: "alias" }, { title: "what" }, { title: "to" }],
      rows,
    ),
  );
}

/** @param {import("../types.js").Run[]} runs */
function runsPanel(runs) {
  if (!runs.length) return panel("Runs that use it", null, h("p", { class: "quiet" }, "None."));
  const rows = runs.map((run) => [
    h("a", { href: links.run(run.id), class: "run-link" }, run.id),
    statusNode(run.status),
    progressNode(run),
    loss(run.last_loss),
    rate(run.last_learning_rate),
    timeNode(run.update_time),
  ]);
  const headings = [
    { title: "run" },
    { title: "status" },
    { title: "steps" },
    { title: "loss", class: "number" },
    { title: "learning rate", class: "number" },
    { title: "updated" },
  ];
  return panel(
    "Runs that use it",
    runs.length >= LISTED ? `The first ${LISTED}.` : null,
    table("Runs that use this model", headings, rows),
  );
}

/** @param {string} title @param {string | null} lead @param {any} tree */
function treePanel(title, lead, tree) {
  return tree && Object.keys(tree).length ? panel(title, lead, treeNode(tree)) : null;
}
