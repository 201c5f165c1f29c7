/** Follows server-sent events, and goes on by itself after any interruption. */

import { AWAY, BACK, address, get, tell } from "./client.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;

/**
 * Follows a stream until the signal is aborted. It is closed while the page is hidden, since a browser opens only six
 * connections to a server, and is opened again where it ended.
 *
 * @param {string} path
 * @param {(cursor: string | null) => Record<string, any>} query the query; the cursor is that of the last event, if any
 * @param {Record<string, (data: any) => void>} handlers by event
 * @param {AbortSignal} signal
 */
export function follow(path, query, handlers, signal) {
  /** @type {EventSource | null} */
  let source = null;
  /** @type {string | null} */
  let cursor = null;
  let wait_ms = FIRST_WAIT_MS;
  let timer = 0;

  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const open = () => {
    close();
    if (signal.aborted || document.hidden) return;
    source = new EventSource(address(path, query(cursor)));
    source.addEventListener("error", lost);
    for (const [name, handler] of Object.entries({ ...handlers, ...presence })) {
      source.addEventListener(name, (event) => {
        wait_ms = FIRST_WAIT_MS;
        cursor = event.lastEventId || cursor;
        handler(JSON.parse(event.data || "null"));
      });
    }
  };
  // A browser does not say why a stream ended. Asking for the session finds out whether to sign in, or to wait.
  const lost = () => {
    close();
    if (signal.aborted) return;
    get("/api/session", {}, signal).catch(() => {});
    timer = setTimeout(open, wait_ms);
    wait_ms = Math.min(2 * wait_ms, LONGEST_WAIT_MS);
  };
  const turned = () => (document.hidden ? close() : open());

  document.addEventListener("visibilitychange", turned, { signal });
  signal.addEventListener("abort", close);
  open();
}

/** @type {Record<string, (data: any) => void>} */
const presence = { away: () => tell(AWAY, "daemon"), back: () => tell(BACK) };
