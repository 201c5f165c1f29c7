/** Which ranks of a distributed run have reported the present step, and which were missing before. */

import { h } from "../../view/dom.js";
import { count, counted, duration } from "../../view/format.js";
import { panel } from "../../view/parts.js";
import { table } from "../../view/table.js";

/** @typedef {import("../../types.js").Ranks} Ranks */

const LISTED = 20;

/** @param {Ranks} ranks */
export function ranksPanel(ranks) {
  const missing = missingWords(ranks);
  return panel("Ranks and stragglers", reportedWords(ranks), missing && h("p", {}, missing), stragglers(ranks.misses));
}

/** @param {Ranks} ranks */
function reportedWords({ step, reported, waiting_s, world_size }) {
  if (reported === 0) return `No rank has reported step ${count(step)} yet.`;
  const waiting = waiting_s === null ? "" : `; the first of them has waited for ${duration(waiting_s)}`;
  return `${count(reported)} of ${counted(world_size, "rank")} have reported step ${count(step)}${waiting}.`;
}

/** The ranks that a step waits for, the lowest ones by number; `null`: none. @param {Ranks} ranks */
export function missingWords({ reported, missing, world_size }) {
  if (!missing.length) return null;
  const listed = missing.slice(0, LISTED);
  const others = world_size - reported - listed.length;
  const more = others > 0 ? ` and ${count(others)} more` : "";
  return `Missing: ${listed.length === 1 && !more ? "rank" : "ranks"} ${listed.join(", ")}${more}.`;
}

/** @param {Ranks["misses"]} misses */
function stragglers(misses) {
  if (!misses.length)
    return h("p", { class: "quiet" }, "No step was answered without a rank, as far as the daemon remembers.");
  const most = Math.max(...misses.map((one) => one.steps));
  const rows = misses.map(({ rank, steps }) => {
    const fill = h("span", { class: "bar-fill warn" });
    fill.style.width = `${(100 * steps) / most}%`;
    return [`rank ${rank}`, counted(steps, "step"), h("span", { class: "bar" }, fill)];
  });
  return table(
    "Ranks that were missing when a step was answered without them",
    [{ title: "rank" }, { title: "missing in", class: "number" }, { title: "", class: "wide" }],
    rows,
    { shown: true },
  );
}
