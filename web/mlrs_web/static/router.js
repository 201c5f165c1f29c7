/** Paths to pages, and moving between them without loading the document again. */

/**
 * @typedef {object} Session
 * @property {boolean} signed_in
 * @property {boolean} tokens_required
 * @property {{address: string, version: string, start_time: number, exit_after_idle_s: number | null} | null} daemon
 * @property {boolean} demo
 * @property {{version: string, memory_bytes: number, memory_limit_bytes: number}} dashboard
 */

/** @typedef {{show: (page: import("./types.js").Page) => Promise<void>}} PageModule */

/** @type {Record<string, () => Promise<PageModule>>} */
const PAGES = {
  "/": () => import("./pages/runs/page.js"),
  "/runs": () => import("./pages/runs/page.js"),
  "/run": () => import("./pages/run/page.js"),
  "/compare": () => import("./pages/compare/page.js"),
  "/tasks": () => import("./pages/tasks.js"),
  "/task": () => import("./pages/task.js"),
  "/models": () => import("./pages/models.js"),
  "/model": () => import("./pages/model.js"),
  "/health": () => import("./pages/health/page.js"),
  "/sign-in": () => import("./pages/sign_in.js"),
};

/** Fired on `document` when another page is to be shown. */
export const MOVED = "mlrs:moved";

/** @param {string} path @returns {(() => Promise<PageModule>) | undefined} */
export const pageOf = (path) => PAGES[path];

/** Shows another page of the dashboard. @param {string} url @param {{replace?: boolean}} [options] */
export function go(url, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  document.dispatchEvent(new Event(MOVED));
}

/** Changes the address of the page shown, without showing it again. @param {URLSearchParams} query */
export function setQuery(query) {
  const text = query.toString();
  history.replaceState(history.state, "", text ? `${location.pathname}?${text}` : location.pathname);
}

/** Lets links within the dashboard, and the browser's buttons, show pages without loading the document. */
export function followLinks() {
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest?.("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!(link instanceof HTMLAnchorElement) || !plain || event.defaultPrevented) return;
    if (link.origin !== location.origin || link.hasAttribute("download") || link.target || !pageOf(link.pathname))
      return;
    event.preventDefault();
    go(link.href);
  });
  addEventListener("popstate", () => document.dispatchEvent(new Event(MOVED)));
}

/** Links to pages. */
export const links = {
  run: (/** @type {string} */ id) => `/run?${new URLSearchParams({ id })}`,
  task: (/** @type {string} */ name) => `/task?${new URLSearchParams({ name })}`,
  model: (/** @type {string} */ ref) => `/model?${new URLSearchParams({ ref })}`,
  compare: (/** @type {string[]} */ ids) => `/compare?${new URLSearchParams(ids.map((id) => ["ids", id]))}`,
  runs: (/** @type {Record<string, string>} */ query) => `/runs?${new URLSearchParams(query)}`,
};
