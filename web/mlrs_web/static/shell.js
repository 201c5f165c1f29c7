/** The frame around every page: navigation, the daemon's state, the theme, the banner. */

import { signOut } from "./api/client.js";
import { showKeys } from "./keys.js";
import { go } from "./router.js";
import { chooseTheme, chosenTheme } from "./theme.js";
import { fill, h, svg } from "./view/dom.js";
import { moment } from "./view/format.js";
import { refreshTimes } from "./view/times.js";

const PLACES = [
  ["/runs", "Runs", ["/", "/runs", "/run"]],
  ["/compare", "Compare", ["/compare"]],
  ["/tasks", "Tasks", ["/tasks", "/task"]],
  ["/models", "Models", ["/models", "/model"]],
  ["/health", "Health", ["/health"]],
];
const THEMES = /** @type {const} */ (["system", "light", "dark"]);
const THEME_WORDS = { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };

/** Builds the frame, once. */
export function buildShell() {
  const nav = h("nav", { "aria-label": "Pages", class: "places" });
  const daemon = h("div", { class: "daemon" });
  const banner = h("div", { class: "banner", role: "status", hidden: true });
  const main = h("main", { id: "main", tabindex: "-1" });
  const demo = h("p", { class: "demo-note", hidden: true }, "These are recorded runs. Nothing is trained.");
  document.body.append(
    h(
      "a",
      { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => (event.preventDefault(), main.focus()) },
      "Skip to the content",
    ),
    h(
      "header",
      { class: "top" },
      h("a", { class: "brand", href: "/runs", "aria-label": "mlrs, the list of runs" }, logo(), h("span", {}, "mlrs")),
      nav,
      h("div", { class: "tools" }, daemon, themeButton(), keysButton()),
    ),
    banner,
    demo,
    main,
  );
  setInterval(refreshTimes, 5000);
  let where = "";

  return {
    /** Returns an empty element for another page. @returns {HTMLElement} */
    newPage() {
      fill(
        nav,
        ...PLACES.map(([href, word, paths]) =>
          h("a", { href, "aria-current": paths.includes(location.pathname) && "page" }, word),
        ),
      );
      const root = h("div", { class: "page", "aria-busy": "true" });
      fill(main, root);
      scrollTo(0, 0);
      return root;
    },
    /** @param {string} title */
    setTitle(title) {
      document.title = title ? `${title} · mlrs` : "mlrs";
    },
    /** @param {import("./router.js").Session} session */
    setSession(session) {
      demo.hidden = !session.demo;
      where = session.daemon?.address ?? where;
      fill(daemon, ...daemonWords(session));
    },
    /** @param {"daemon" | "dashboard" | null} who who does not answer */
    setAway(who) {
      document.documentElement.classList.toggle("away", who !== null);
      banner.hidden = who === null;
      const subject =
        who === "dashboard" ? `The dashboard at ${location.origin}` : `The daemon${where ? ` at ${where}` : ""}`;
      const text = who === null ? "" : `${subject} does not answer; trying again. Trainings go on.`;
      if (banner.textContent !== text) fill(banner, text);
    },
  };
}

/** @param {import("./router.js").Session} session */
function daemonWords(session) {
  const { daemon } = session;
  const leave = async () => {
    await signOut();
    go("/sign-in");
  };
  return [
    daemon
      ? h(
          "span",
          { class: "daemon-name", title: `mlrs ${daemon.version}, since ${moment(daemon.start_time)}` },
          daemon.address,
        )
      : null,
    session.tokens_required && session.signed_in
      ? h("button", { class: "button small", onclick: leave }, "Sign out")
      : null,
  ];
}

function themeButton() {
  const label = () => THEME_WORDS[chosenTheme()];
  const button = h(
    "button",
    { class: "icon-button", onclick: turn },
    h("span", { class: "theme-icon", "aria-hidden": "true" }),
  );
  function turn() {
    chooseTheme(THEMES[(THEMES.indexOf(chosenTheme()) + 1) % THEMES.length]);
    name();
  }
  function name() {
    button.title = `${label()}. Click to change it.`;
    button.setAttribute("aria-label", label());
    button.dataset.choice = chosenTheme();
  }
  name();
  return button;
}

function keysButton() {
  return h(
    "button",
    { class: "icon-button keys-button", title: "Show the keys", "aria-label": "Show the keys", onclick: showKeys },
    "?",
  );
}

function logo() {
  const curve = svg("path", {
    d: "M6 9h6c6 0 5 14 14 14",
    fill: "none",
    stroke: "currentColor",
    "stroke-width": 3.2,
    "stroke-linecap": "round",
  });
  return svg(
    "svg",
    { viewBox: "0 0 32 32", class: "logo", "aria-hidden": "true" },
    svg("rect", { width: 32, height: 32, rx: 7, class: "logo-ground" }),
    curve,
  );
}
