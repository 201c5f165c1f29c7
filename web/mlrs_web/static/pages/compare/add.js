/** Adds a run to the comparison by its id. */

import { get } from "../../api/client.js";
import { debounced, fill, h } from "../../view/dom.js";

const QUIET_MS = 200;
const OFFERED = 20;

/** @param {string[]} ids those compared already @param {AbortSignal} signal @param {(id: string) => void} onadd */
export function addForm(ids, signal, onadd) {
  const list = h("datalist", { id: "known-runs" });
  const field = h("input", {
    type: "text",
    list: "known-runs",
    placeholder: "id of a run",
    "aria-label": "Id of a run to add",
    autocomplete: "off",
    spellcheck: "false",
  });
  const offer = debounced(async () => {
    if (signal.aborted) return;
    try {
      const { runs } = await get(
        "/api/runs",
        { contains: field.value.trim(), order: "created", size: OFFERED },
        signal,
      );
      fill(
        list,
        ...runs
          .filter((/** @type {any} */ run) => !ids.includes(run.id))
          .map((/** @type {any} */ run) => h("option", { value: run.id }, run.task)),
      );
    } catch {
      // Without suggestions, the id can be typed all the same.
    }
  }, QUIET_MS);
  field.addEventListener("input", offer);
  field.addEventListener("focus", offer, { once: true });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const id = field.value.trim();
    if (id && !ids.includes(id)) onadd(id);
  };
  return h(
    "form",
    { class: "add-run", onsubmit: submit },
    field,
    h("button", { class: "button" }, "Add the run"),
    list,
  );
}
