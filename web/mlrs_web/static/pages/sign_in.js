/** The page that asks for a token. */

import { signIn } from "../api/client.js";
import { go } from "../router.js";
import { fill, h } from "../view/dom.js";

/** @param {import("../types.js").Page} page */
export async function show({ root, query, session, setTitle }) {
  setTitle("Sign in");
  if (session.signed_in || !session.tokens_required) return go(next(query), { replace: true });
  const field = h("input", {
    type: "password",
    id: "token",
    name: "token",
    autocomplete: "off",
    required: true,
    spellcheck: "false",
    "aria-describedby": "token-hint",
  });
  const failure = h("p", { class: "warning", role: "alert", hidden: true });
  const button = h("button", { class: "button primary" }, "Sign in");
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    /** @type {any} */ (button).disabled = true;
    try {
      await signIn(field.value.trim());
      go(next(query), { replace: true });
    } catch (error) {
      const refused = /** @type {any} */ (error).status === 401;
      fill(failure, refused ? "The daemon does not accept this token." : /** @type {Error} */ (error).message);
      failure.hidden = false;
      field.select();
    } finally {
      /** @type {any} */ (button).disabled = false;
    }
  };
  fill(
    root,
    h(
      "form",
      { class: "sign-in panel", onsubmit: submit },
      h("h1", {}, "Sign in"),
      h("p", {}, "This daemon asks for a token. With it, the page shows the runs of the token's tenant."),
      h("label", { for: "token" }, "Token"),
      field,
      h(
        "p",
        { class: "quiet", id: "token-hint" },
        "Whoever runs the daemon makes one: ",
        h("code", {}, "mlrs tokens create"),
        ". It stays in the dashboard's memory, and the browser gets a cookie in its place.",
      ),
      failure,
      button,
    ),
  );
  field.focus();
}

/** Where to go after signing in: only to a page of this dashboard. @param {URLSearchParams} query */
function next(query) {
  const url = new URL(query.get("next") ?? "/runs", location.origin);
  return url.origin === location.origin && url.pathname !== "/sign-in" ? url.pathname + url.search : "/runs";
}
