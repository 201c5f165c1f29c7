/** The filters of the list of runs. They stand in the page's address, so that a link shows the same list. */

import { get } from "../../api/client.js";
import { setQuery } from "../../router.js";
import { debounced, fill, h } from "../../view/dom.js";
import { buildTagFilter } from "./tag_filter.js";

const QUIET_MS = 200;
const TEXTS = /** @type {const} */ (["contains", "task", "model"]);
const ORDERS = [
  ["created", "newest first"],
  ["recent", "updated last"],
  ["id", "by id"],
];
const STATUS_CHOICES = [
  ["", "any status"],
  ["active", "active"],
  ["diverged", "diverged"],
  ["finished", "finished"],
];

/** @param {URLSearchParams} query @param {AbortSignal} signal @param {() => void} onchange */
export function buildFilters(query, signal, onchange) {
  const changed = () => {
    keep();
    onchange();
  };
  const soon = debounced(() => signal.aborted || changed(), QUIET_MS);
  const contains = textField("search", "id contains", query.get("contains"), soon, "press / to type here");
  const task = textField("text", "task", query.get("task"), soon, "any task", "known-tasks");
  const model = textField("text", "model", query.get("model"), soon, "any model", "known-models");
  const status = choice("status", STATUS_CHOICES, query.get("status") ?? "", changed);
  const order = choice("order", ORDERS, query.get("order") ?? "created", changed);
  const tags = buildTagFilter(query.getAll("tag"), changed);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    tags.add();
  };
  const clearButton = h("button", { type: "button", class: "button", onclick: clear }, "Clear");
  const node = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Filter the runs", onsubmit: submit },
    label("id", contains),
    label("status", status),
    label("task", task),
    label("model", model),
    tags.field,
    label("order", order),
    tags.list,
    clearButton,
    h("datalist", { id: "known-tasks" }),
    h("datalist", { id: "known-models" }),
  );
  clearButton.hidden = !any();
  void suggest(node, signal);

  function values() {
    return {
      contains: contains.value.trim(),
      status: status.value,
      task: task.value.trim(),
      model: model.value.trim(),
      tag: tags.values(),
      order: order.value,
    };
  }
  function any() {
    const { order: _, tag: given, ...texts } = values();
    return given.length > 0 || Object.values(texts).some(Boolean);
  }
  function keep() {
    const now = new URLSearchParams();
    const given = values();
    for (const name of [...TEXTS, "status"])
      if (given[/** @type {"task"} */ (name)]) now.set(name, given[/** @type {"task"} */ (name)]);
    for (const one of given.tag) now.append("tag", one);
    if (given.order !== "created") now.set("order", given.order);
    clearButton.hidden = !any();
    setQuery(now);
  }
  function clear() {
    for (const field of [contains, task, model, status]) field.value = "";
    tags.clear();
    changed();
  }
  return { node, values, any, clear, focus: () => (contains.focus(), contains.select()) };
}

/** Offers the tasks and models that there are. @param {Element} node @param {AbortSignal} signal */
async function suggest(node, signal) {
  const offer = (/** @type {string} */ id, /** @type {string[]} */ names) => {
    const list = node.querySelector(`#${id}`);
    if (list) fill(list, ...names.map((value) => h("option", { value })));
  };
  const [tasks, models] = await Promise.allSettled([get("/api/tasks", {}, signal), get("/api/models", {}, signal)]);
  if (tasks.status === "fulfilled")
    offer(
      "known-tasks",
      tasks.value.tasks.map((/** @type {any} */ one) => one.name),
    );
  if (models.status === "fulfilled")
    offer("known-models", [
      ...new Set(models.value.models.map((/** @type {any} */ one) => /** @type {string} */ (one.name))),
    ]);
}

/** @param {string} words @param {Node} field */
const label = (words, field) => h("label", { class: "field" }, h("span", {}, words), field);

/** @param {string} type @param {string} name @param {string | null} value @param {() => void} oninput @param {string} placeholder @param {string} [list] */
function textField(type, name, value, oninput, placeholder, list) {
  return h("input", {
    type,
    name,
    value: value ?? "",
    placeholder,
    "aria-label": name,
    list,
    oninput,
    autocomplete: "off",
    spellcheck: "false",
  });
}

/** @param {string} name @param {string[][]} options @param {string} value @param {() => void} onchange */
function choice(name, options, value, onchange) {
  return h(
    "select",
    { name, "aria-label": name, onchange },
    ...options.map(([option, words]) => h("option", { value: option, selected: option === value }, words)),
  );
}
