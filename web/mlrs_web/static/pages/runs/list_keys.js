/** The keys of the list of runs. */

/**
 * @param {object} parts
 * @param {{focus: () => void}} parts.filters
 * @param {import("./list.js").RunList} parts.list
 * @param {() => void} parts.compare
 * @returns {import("../../keys.js").Key[]}
 */
export function listKeys({ filters, list, compare }) {
  const move = (/** @type {number} */ by) => (/** @type {KeyboardEvent} */ event) => {
    event.preventDefault();
    list.move(by);
  };
  return [
    { key: "/", does: "Filter by id", run: (event) => (event.preventDefault(), filters.focus()) },
    { key: "j", shown: "j ↓", does: "Next run", run: move(1) },
    { key: "ArrowDown", shown: "", does: "", run: move(1) },
    { key: "k", shown: "k ↑", does: "Run before", run: move(-1) },
    { key: "ArrowUp", shown: "", does: "", run: move(-1) },
    { key: "Enter", does: "Open the run", run: () => list.open() },
    { key: "x", does: "Select the run, or not", run: () => list.toggle() },
    { key: "c", does: "Compare the selected runs", run: compare },
  ];
}
