/**
 * Builds nodes. Text that comes from a daemon only ever becomes text nodes and attribute values, never markup.
 */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Makes an element: attributes by name (`null`, `undefined` and `false` are left out, `true` is the empty value),
 * listeners as `onclick` and so on, then children.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement & Record<string, any>}
 */
export function h(tag, attributes = {}, ...children) {
  return /** @type {any} */ (filled(document.createElement(tag), attributes, children));
}

/**
 * Makes an SVG element, as `h` makes one of HTML.
 *
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  return /** @type {SVGElement} */ (filled(document.createElementNS(SVG, tag), attributes, children));
}

/** @param {Element} node @param {Record<string, any>} attributes @param {(Child | Child[])[]} children */
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, ...children);
  return node;
}

/** Appends children, and leaves out those that are not there. @param {Element} node @param {...(Child | Child[])} children */
export function append(node, ...children) {
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
}

/** Replaces the children of a node. @param {Element} node @param {...(Child | Child[])} children */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, ...children);
}

/** Sets a text if it differs, so that screen readers and selections are left alone. @param {Element} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Calls a function once things have been quiet for a while.
 *
 * @param {() => void} work
 * @param {number} quiet_ms
 * @returns {() => void}
 */
export function debounced(work, quiet_ms) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, quiet_ms);
  };
}
