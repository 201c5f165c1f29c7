/** The filter by tags: a field to add one, and those given, each a button that removes it. */

import { fill, h } from "../../view/dom.js";

/** @param {string[]} given tags as name:value @param {() => void} onchange the reader added or removed one */
export function buildTagFilter(given, onchange) {
  let tags = given;
  const text = h("input", {
    type: "text",
    placeholder: "name:value",
    "aria-label": "Tag, as name:value",
    size: 14,
    autocomplete: "off",
  });
  const button = h("button", { class: "button small", title: "Only runs with this tag" }, "Add");
  const list = h("span", { class: "tags" });
  const set = (/** @type {string[]} */ now) => {
    tags = now;
    fill(list, ...tags.map(tagButton));
  };
  const tagButton = (/** @type {string} */ tag) => {
    const remove = () => {
      set(tags.filter((other) => other !== tag));
      onchange();
    };
    const attributes = { type: "button", class: "tag", onclick: remove, "aria-label": `Remove the tag filter ${tag}` };
    return h("button", attributes, tag, h("span", { "aria-hidden": "true" }, " ×"));
  };
  set(tags);
  return {
    field: h("span", { class: "field" }, h("span", {}, "tag"), h("span", { class: "with-button" }, text, button)),
    list,
    values: () => tags,
    clear: () => set([]),
    /** Adds the tag that stands in the field; without a value, it is the tag with an empty one. */
    add() {
      const tag = text.value.trim();
      if (!tag) return;
      text.value = "";
      set([...new Set([...tags, tag.includes(":") ? tag : `${tag}:`])]);
      onchange();
    },
  };
}
