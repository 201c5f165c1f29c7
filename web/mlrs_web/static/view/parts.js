/** Small parts that several pages show. */

import { ApiError } from "../api/client.js";
import { glyph } from "../charts/glyphs.js";
import { links } from "../router.js";
import { fill, h, svg } from "./dom.js";
import { NONE, count, counted, percent } from "./format.js";
import { STATUSES } from "./words.js";

/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("../types.js").Run} Run */

/** What stands where something is being read. */
export const waiting = () => h("p", { class: "waiting", role: "status" }, "Reading …");

/** What stands where a page could not be read. @param {Error} error */
export function problem(error) {
  const code = error instanceof ApiError ? error.code : "internal";
  const title = {
    not_found: "There is no such thing",
    unavailable: "Waiting for the daemon",
    invalid: "This address says something wrong",
    forbidden: "This token may not see that",
    unimplemented: "This daemon is too old for this page",
  }[code];
  const next = code === "unavailable" ? "This page shows itself as soon as it answers." : null;
  return h(
    "section",
    { class: "empty", role: "alert" },
    h("h1", {}, title ?? "Something went wrong"),
    h("p", {}, error.message),
    next && h("p", {}, next),
    h("p", {}, h("a", { href: "/runs" }, "All runs")),
  );
}

/** What stands where nothing is. @param {string} title @param {...(Child | Child[])} more */
export const empty = (title, ...more) => h("section", { class: "empty" }, h("h2", {}, title), ...more);

/** A status as shape, colour and word. @param {string} status */
export function statusNode(status) {
  const kind = STATUSES[status];
  if (!kind) return h("span", { class: "status" }, status);
  return h("span", { class: `status status-${status}`, title: kind.why }, glyph(kind), h("span", {}, kind.word));
}

/** Step of horizon, with a bar where the horizon is known. @param {Run} run */
export function progressNode(run) {
  const text = run.horizon ? `${count(run.next_step)} / ${count(run.horizon)}` : counted(run.next_step, "step");
  const node = h("span", { class: "progress" }, h("span", { class: "progress-text" }, text));
  if (run.horizon) {
    const share = Math.min(1, run.next_step / run.horizon);
    const bar = h("span", { class: "bar" }, h("span", { class: "bar-fill" }));
    /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${share * 100}%`;
    node.title = `${percent(share)} of the horizon`;
    node.append(bar);
  }
  return node;
}

/** The model that a run uses, as a link, or its schedule. @param {{model: string | null, schedule: string | null}} run */
export function policyNode(run) {
  if (run.model) {
    const [name, digest] = run.model.split("@");
    const short = digest ? h("span", { class: "digest" }, `@${digest.slice(0, 8)}`) : null;
    return h(
      "a",
      { class: "policy", href: links.model(run.model), title: `Advised by the model ${run.model}` },
      name,
      short,
    );
  }
  if (run.schedule)
    return h("span", { class: "policy", title: "A hand-designed schedule" }, `${run.schedule} schedule`);
  return NONE;
}

/** Tags as small labels, each a link to the runs that have it. @param {Record<string, string>} tags */
export function tagNodes(tags) {
  return Object.entries(tags).map(([name, value]) => {
    const text = value ? `${name}: ${value}` : name;
    return h(
      "a",
      { class: "tag", href: links.runs({ tag: `${name}:${value}` }), title: `All runs with ${text}` },
      text,
    );
  });
}

/** A list of named facts; those without a value are left out. @param {[string, Child | Child[]][]} facts */
export function factsNode(facts) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined && value !== false);
  return h(
    "dl",
    { class: "facts" },
    ...shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A titled part of a page. @param {string} title @param {string | null} lead @param {...(Child | Child[])} children */
export function panel(title, lead, ...children) {
  return h(
    "section",
    { class: "panel", "aria-label": title },
    h("h2", {}, title),
    lead && h("p", { class: "lead" }, lead),
    ...children,
  );
}

/** Code with a button that copies it. @param {string} text @param {string} label what it is */
export function copyable(text, label) {
  const button = h("button", { class: "button small copy", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copied(text);
    fill(button, done ? "Copied" : "Select and copy it");
    setTimeout(() => fill(button, "Copy"), 2000);
  });
  return h(
    "div",
    { class: "code" },
    h("pre", { tabindex: "0", role: "region", "aria-label": label }, h("code", {}, text)),
    button,
  );
}

/** @param {string} text @returns {Promise<boolean>} */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** A piece of a line as charts draw it. @param {{colour: string, dash: number[], marker: import("../charts/glyphs.js").Shape | null, hollow?: boolean}} style */
export function lineKey({ colour, dash, marker, hollow }) {
  const line = svg("line", {
    x1: 0,
    y1: 6,
    x2: 30,
    y2: 6,
    stroke: "currentColor",
    "stroke-width": 2.2,
    "stroke-dasharray": dash.join(" ") || null,
  });
  const key = svg("svg", { viewBox: "0 0 30 12", class: `line-key ink-${colour}`, "aria-hidden": "true" }, line);
  return h("span", { class: "line-key-box" }, key, marker && glyph({ shape: marker, colour, hollow }));
}
