/** The page of a task: how its runs ended, the curve fitted to them, and what the next run begins with. */

import { get } from "../api/client.js";
import { Chart } from "../charts/chart.js";
import { glyph } from "../charts/glyphs.js";
import { go, links } from "../router.js";
import { fill, h } from "../view/dom.js";
import { count, counted, loss, rate, significant, words } from "../view/format.js";
import { factsNode, lineKey, panel, policyNode } from "../view/parts.js";
import { table } from "../view/table.js";
import { timeNode } from "../view/times.js";
import { ENDINGS } from "../view/words.js";
import { endedAt, offsetPicture, policiesOf, ratePicture } from "./task_pictures.js";

/** @typedef {import("./task_pictures.js").Memory} Memory */
/** @typedef {import("./task_pictures.js").Past} Past */

/** @param {import("../types.js").Page} page */
export async function show({ root, query, signal, setTitle }) {
  const name = query.get("name") ?? "";
  setTitle(`Task ${name}`);
  const memory = await remembered(name, signal);
  const title = h(
    "div",
    { class: "title-line" },
    h("h1", { class: "run-id" }, name),
    h("div", { class: "actions" }, h("a", { class: "button", href: links.runs({ task: name }) }, "All its runs")),
  );
  if (!memory) {
    fill(root, h("header", { class: "page-head" }, title), nothingPanel());
    return;
  }
  const facts = factsNode([
    ["remembered", counted(memory.remembered ?? memory.runs.length, "run")],
    ["measure", memory.measure ? words(memory.measure) : "none yet"],
    ["best known", memory.best && armWords(memory.best)],
    ["updated", memory.runs.length ? timeNode(Math.max(...memory.runs.map((run) => run.time))) : null],
  ]);
  const head = h("header", { class: "page-head" }, title, facts);
  fill(root, head, nextPanel(memory), ...charts(memory, signal), runsPanel(memory));
}

/**
 * What is remembered of a task; null: nothing.
 *
 * @param {string} name
 * @param {AbortSignal} signal
 * @returns {Promise<Memory | null>}
 */
async function remembered(name, signal) {
  try {
    return await get("/api/task", { name }, signal);
  } catch (error) {
    if (/** @type {any} */ (error).code === "not_found") return null;
    throw error;
  }
}

function nothingPanel() {
  const why =
    "Runs take no part in the memory of their task where they have no horizon, or were given a learning rate, " +
    "a model, a schedule or meta mode.";
  return panel("Nothing is remembered of this task", null, h("p", {}, why));
}

/** @param {Memory} memory */
function nextPanel({ next, next_arm: arm, measure }) {
  if (!next)
    return panel("The next run", null, h("p", {}, "Nothing is known yet of what the next run would begin with."));
  const arrives = arm
    ? h("p", { class: "next-arm" }, "It would begin with ", h("b", {}, armWords(arm)), ".")
    : h("p", {}, "It would begin as a run without memory does.");
  const [low, high] = [next.expected_low, next.expected_high];
  const what = words(next.measure ?? measure ?? "");
  const range =
    low !== null && high !== null
      ? `${loss(low)} to ${loss(high)}`
      : low !== null
        ? `at least ${loss(low)}`
        : high !== null
          ? `at most ${loss(high)}`
          : null;
  return panel(
    "The next run",
    null,
    arrives,
    h("p", { class: "why" }, next.why),
    range && what ? h("p", { class: "quiet" }, `It is expected to end with a ${what} of ${range}.`) : null,
  );
}

/** @param {import("./task_pictures.js").Expected} arm */
function armWords(arm) {
  if (arm.learning_rate !== null) return `a learning rate of ${rate(arm.learning_rate)} and ${policyWords(arm.policy)}`;
  const offset = arm.lr_offset ? `, ${offsetWords(arm.lr_offset)}` : "";
  return `${policyWords(arm.policy)}${offset}`;
}

/** @param {string} policy */
const policyWords = (policy) => (policy.includes("@") ? `the model ${policy}` : `a ${policy} schedule`);

/** @param {number} octaves */
const offsetWords = (octaves) => `its learning rates times ${significant(2 ** octaves, 3)}`;

/** @param {Memory} memory @param {AbortSignal} signal */
function charts(memory, signal) {
  const measure = words(memory.measure ?? "measure");
  const parts = [
    {
      picture: ratePicture(memory),
      title: "How runs ended, by the learning rate they began with",
      xLabel: "learning rate to begin with",
      xText: rate,
    },
    {
      picture: offsetPicture(memory),
      title: "How runs ended that a model advised, by what its rates were multiplied with",
      xLabel: "octaves (factors of two)",
      xText: (/** @type {number} */ value) => significant(value, 3),
    },
  ];
  return parts.flatMap(({ picture, title, xLabel, xText }) => {
    if (!picture) return [];
    const chart = new Chart({ label: title, yLabel: measure, xLabel, height: 340, xText, onopen: go }, signal);
    queueMicrotask(() => chart.show(picture));
    return [panel(title, null, legend(memory, picture), chart.node)];
  });
}

/** @param {Memory} memory @param {import("../charts/chart.js").Picture} picture */
function legend(memory, picture) {
  const { points = [], bands = [], rules = [] } = picture;
  const entry = (/** @type {Node} */ sign, /** @type {string} */ text) =>
    h("span", { class: "legend-line" }, sign, text);
  const policies = policiesOf(memory).filter(
    ({ policy, colour }) =>
      points.some((point) => point.colour === colour) || picture.lines.some((line) => line.label === policy),
  );
  const lines = policies.map(({ policy, colour, dash, hollow }) =>
    entry(lineKey({ colour, dash, marker: "circle", hollow }), policy),
  );
  const endings = Object.values(ENDINGS).filter(({ shape }) => points.some((point) => point.shape === shape));
  const shapes = endings.map((ending) => entry(glyph({ ...ending, colour: "quiet" }), ending.word));
  const band = bands.length
    ? entry(
        h("i", { class: "swatch-band ink-quiet", "aria-hidden": "true" }),
        "fitted curve, within one standard deviation",
      )
    : null;
  const across = rules.map((rule) =>
    entry(
      lineKey({ colour: rule.colour, dash: rule.dash ?? [], marker: null }),
      rule.words.split(":")[0].toLowerCase(),
    ),
  );
  return h(
    "div",
    { class: "legend" },
    h("span", { class: "legend-lines" }, ...lines, ...shapes, band, ...across),
    h("span", { class: "quiet" }, "A click on a point opens its run."),
  );
}

/** @param {Memory} memory */
function runsPanel(memory) {
  const headings = [
    { title: "run" },
    { title: "ended" },
    { title: "policy" },
    { title: "began at", class: "number" },
    { title: memory.measure ? words(memory.measure) : "measure", class: "number" },
    { title: "steps", class: "number" },
    { title: "optimizer" },
    { title: "when" },
  ];
  const values = memory.runs.map((run) => endedAt(run, memory.measure));
  const known = values.filter((one) => one !== null);
  const higher = memory.measure === "metric" && memory.runs.some((run) => run.higher_is_better);
  const best = known.length ? (higher ? Math.max(...known) : Math.min(...known)) : null;
  const rows = memory.runs.map((run, index) => [
    h("a", { href: links.run(run.id), class: "run-link" }, run.id),
    endingNode(run),
    policyOf(run),
    beganAt(run),
    values[index] !== null && values[index] === best
      ? h("span", { class: "best" }, loss(best), h("span", { class: "best-word" }, "best"))
      : loss(values[index]),
    run.horizon ? count(run.horizon) : "–",
    run.optimizer || "–",
    timeNode(run.time),
  ]);
  return panel("Its runs", null, table("Remembered runs of the task, the newest first", headings, rows));
}

/** @param {Past} run */
function endingNode(run) {
  const kind = ENDINGS[run.ending ?? ""];
  return kind ? h("span", { class: "status", title: kind.why }, glyph(kind), h("span", {}, kind.word)) : "–";
}

/** @param {Past} run */
function policyOf(run) {
  return run.policy.includes("@")
    ? policyNode({ model: run.policy, schedule: null })
    : policyNode({ model: null, schedule: run.policy });
}

/** @param {Past} run */
function beganAt(run) {
  if (run.learning_rate === null) return run.lr_offset ? `× ${significant(2 ** run.lr_offset, 3)}` : "–";
  return run.searched ? [rate(run.learning_rate), h("span", { class: "quiet" }, " found")] : rate(run.learning_rate);
}
