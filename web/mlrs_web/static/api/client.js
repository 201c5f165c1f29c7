/** Asks the dashboard's server, and tells the page whether the daemon behind it answers. */

/** Fired on `document`: the daemon or the dashboard does not answer. */
export const AWAY = "mlrs:away";
/** Fired on `document`: it answers again. */
export const BACK = "mlrs:back";
/** Fired on `document`: a token is required. */
export const SIGNED_OUT = "mlrs:signed-out";

/** An answer that is an error. */
export class ApiError extends Error {
  /** @param {string} code @param {string} message @param {number} status 0: nothing answered */
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/**
 * Returns a path with a query: `null`, `undefined` and empty values are left out, an array repeats its name.
 *
 * @param {string} path
 * @param {Record<string, any>} [query]
 */
export function address(path, query = {}) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") pairs.append(name, String(one));
    }
  }
  const text = pairs.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Reads JSON.
 *
 * @param {string} path
 * @param {Record<string, any>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 * @throws {ApiError}
 */
export async function get(path, query = {}, signal) {
  const response = await send(address(path, query), { signal, headers: { Accept: "application/json" } });
  const answer = await response.json();
  if (path !== "/api/session") tell(BACK);
  return answer;
}

/** Exchanges a token for a cookie. @param {string} token @throws {ApiError} */
export async function signIn(token) {
  const headers = { "Content-Type": "application/json", "X-MLRS": "1" };
  await send("/api/session", { method: "POST", headers, body: JSON.stringify({ token }) });
}

/** Signs out. @throws {ApiError} */
export async function signOut() {
  await send("/api/session", { method: "DELETE", headers: { "X-MLRS": "1" } });
}

/** Whether an error only says that the page was left. @param {unknown} error */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

let isAway = false;

/** Tells the page. That something answers is news only where it did not before. @param {string} type @param {unknown} [detail] */
export function tell(type, detail = null) {
  if (type === BACK && !isAway) return;
  if (type !== SIGNED_OUT) isAway = type === AWAY;
  document.dispatchEvent(new CustomEvent(type, { detail }));
}

/** @param {string} url @param {RequestInit} options @returns {Promise<Response>} */
async function send(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (isAbort(error)) throw error;
    tell(AWAY, "dashboard");
    throw new ApiError("unavailable", "The dashboard does not answer.", 0);
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  if (error.status === 503) tell(AWAY, "daemon");
  if (error.status === 401 && options.method === undefined) tell(SIGNED_OUT);
  throw error;
}

/** @param {Response} response */
async function errorOf(response) {
  try {
    const { error } = await response.json();
    return new ApiError(error.code, error.message, response.status);
  } catch {
    return new ApiError("internal", `The dashboard answered with status ${response.status}.`, response.status);
  }
}
