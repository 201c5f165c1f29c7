/** The table of models. */

import { get } from "../api/client.js";
import { links } from "../router.js";
import { fill, h } from "../view/dom.js";
import { bytes, count } from "../view/format.js";
import { empty } from "../view/parts.js";
import { table } from "../view/table.js";

/**
 * @typedef {object} Model
 * @property {string} ref
 * @property {string} name
 * @property {string} digest
 * @property {string[]} aliases
 * @property {string} architecture
 * @property {Record<string, any>} architecture_fields
 * @property {number} snapshots
 * @property {number} parameters
 * @property {Record<string, any>} provenance
 * @property {number} size_bytes
 */

/** @param {import("../types.js").Page} page */
export async function show({ root, signal, setTitle }) {
  setTitle("Models");
  const models = /** @type {Model[]} */ ((await get("/api/models", {}, signal)).models);
  const groups = [...Map.groupBy(models, (one) => one.name)];
  const head = h(
    "header",
    { class: "page-head" },
    h("h1", {}, "Models"),
    h(
      "p",
      { class: "lead" },
      "A model is immutable: its name and the digest of its content. Aliases point at models, and can be moved.",
    ),
  );
  if (!models.length)
    return fill(
      root,
      head,
      empty("No models", h("p", {}, "Import one: ", h("code", {}, "mlrs models import FILE --name NAME"), ".")),
    );
  fill(root, head, ...groups.map(([name, versions]) => versionsPanel(name, versions)));
}

/** @param {string} name @param {Model[]} versions */
function versionsPanel(name, versions) {
  const headings = [
    { title: "version" },
    { title: "aliases" },
    { title: "architecture" },
    { title: "made by" },
    { title: "parameters", class: "number" },
    { title: "snapshots", class: "number" },
    { title: "size", class: "number" },
    { title: "" },
  ];
  const rows = versions.map((one) => [
    h(
      "a",
      { href: links.model(one.ref), class: "run-link", title: one.digest },
      `${one.name}@${one.digest.slice(0, 8)}`,
    ),
    aliasNodes(one.aliases),
    one.architecture,
    String(one.provenance?.method ?? "–"),
    count(one.parameters),
    count(one.snapshots),
    bytes(one.size_bytes),
    h("a", { href: links.runs({ model: one.ref }), "aria-label": `Runs that use ${one.ref}` }, "its runs"),
  ]);
  return h(
    "section",
    { class: "panel", "aria-label": name },
    h("h2", {}, name),
    table(`Versions of ${name}`, headings, rows),
  );
}

/** @param {string[]} aliases */
export const aliasNodes = (aliases) =>
  aliases.length ? h("span", { class: "tags" }, ...aliases.map((one) => h("span", { class: "tag plain" }, one))) : "–";
