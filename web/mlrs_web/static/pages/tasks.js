/** The table of tasks. */

import { get } from "../api/client.js";
import { links } from "../router.js";
import { fill, h } from "../view/dom.js";
import { count, counted } from "../view/format.js";
import { empty } from "../view/parts.js";
import { table } from "../view/table.js";
import { timeNode } from "../view/times.js";

/** @typedef {{name: string, runs: number, update_time: number}} Task */

/** @param {import("../types.js").Page} page */
export async function show({ root, signal, setTitle }) {
  setTitle("Tasks");
  /** @type {{tasks: Task[], truncated: boolean}} */
  const { tasks, truncated } = await get("/api/tasks", {}, signal);
  fill(
    root,
    h(
      "header",
      { class: "page-head" },
      h("h1", {}, "Tasks"),
      h(
        "p",
        { class: "lead" },
        "A task is what is trained. The daemon remembers how its runs ended, and begins the next one better.",
      ),
    ),
    tasks.length ? list(tasks) : nothing(),
    truncated ? h("p", { class: "quiet" }, "There are more. ", h("code", {}, "mlrs tasks list"), " shows all.") : null,
  );
}

/** @param {Task[]} tasks */
function list(tasks) {
  const headings = [
    { title: "task" },
    { title: "remembered runs", class: "number" },
    { title: "updated" },
    { title: "" },
  ];
  const rows = tasks.map(({ name, runs, update_time }) => [
    h("a", { href: links.task(name), class: "run-link" }, name),
    count(runs),
    timeNode(update_time),
    h("a", { href: links.runs({ task: name }), "aria-label": `The runs of ${name}` }, "its runs"),
  ]);
  return h("section", { class: "panel", "aria-label": "Tasks" }, table(counted(tasks.length, "task"), headings, rows));
}

function nothing() {
  return empty(
    "No tasks yet",
    h(
      "p",
      {},
      "A run's task is remembered where the run has a horizon: ",
      h("code", {}, 'AdvisedLR(optimizer, "my-task", horizon=10_000)'),
      ".",
    ),
    h("p", {}, h("a", { href: "/runs" }, "All runs")),
  );
}
