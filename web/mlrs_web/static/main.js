/** Starts the dashboard: its frame, its keys, and the page that the address names. */

import { AWAY, ApiError, BACK, SIGNED_OUT, get, isAbort, tell } from "./api/client.js";
import { listenToKeys, resetPageKeys } from "./keys.js";
import { MOVED, followLinks, go, pageOf } from "./router.js";
import { buildShell } from "./shell.js";
import { followSystemTheme } from "./theme.js";
import { problem, waiting } from "./view/parts.js";

const ASK_AGAIN_MS = 2000;

const shell = buildShell();
let leaving = new AbortController();
let failed = false;
let asking = 0;

/** Shows the page that the address names. */
async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const root = shell.newPage();
  resetPageKeys();
  failed = false;
  const query = new URLSearchParams(location.search);
  const waitTimer = setTimeout(() => root.childElementCount || root.append(waiting()), 250);
  try {
    const load = pageOf(location.pathname);
    if (!load) throw new ApiError("not_found", `The dashboard has no page ${location.pathname}.`, 404);
    const loading = load();
    loading.catch(() => {}); // a failure is met where the module is awaited, unless the page is left before
    /** @type {import("./router.js").Session} */
    const session = await get("/api/session", {}, signal);
    if (session.tokens_required && !session.signed_in && location.pathname !== "/sign-in") return signedOut();
    shell.setSession(session);
    if (!session.daemon && !session.tokens_required) shell.setAway("daemon");
    const page = await loading;
    if (signal.aborted) return;
    await page.show({ root, query, signal, session, setTitle: shell.setTitle });
  } catch (error) {
    if (isAbort(error) || signal.aborted) return;
    failed = true;
    root.replaceChildren(problem(/** @type {Error} */ (error)));
    if (!(error instanceof ApiError)) console.error(error);
  } finally {
    clearTimeout(waitTimer);
    if (!signal.aborted) root.removeAttribute("aria-busy");
  }
}

function signedOut() {
  if (location.pathname === "/sign-in") return;
  go(`/sign-in?${new URLSearchParams({ next: location.pathname + location.search })}`, { replace: true });
}

/** Asks until the daemon answers again. */
async function askAgain() {
  try {
    const now = await get("/api/session");
    if (now.daemon || (now.tokens_required && !now.signed_in)) return tell(BACK);
    shell.setAway("daemon");
  } catch {
    // The client has told already that nothing answers.
  }
  asking = setTimeout(askAgain, ASK_AGAIN_MS);
}

function back() {
  if (!asking) return;
  clearTimeout(asking);
  asking = 0;
  shell.setAway(null);
  if (failed) show();
}

document.addEventListener(AWAY, (event) => {
  shell.setAway(/** @type {CustomEvent} */ (event).detail);
  if (!asking) asking = setTimeout(askAgain, ASK_AGAIN_MS);
});
document.addEventListener(BACK, back);
document.addEventListener(SIGNED_OUT, signedOut);
document.addEventListener(MOVED, show);
followSystemTheme();
followLinks();
listenToKeys();
show();
