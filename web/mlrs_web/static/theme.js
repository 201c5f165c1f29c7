/** The theme: light or dark, as the system says or as the reader chose. */

const KEY = "mlrs-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** Fired on `document` after the theme has changed. */
export const THEME_CHANGED = "mlrs:theme";

/** @returns {"system" | "light" | "dark"} what the reader chose */
export function chosenTheme() {
  try {
    const stored = localStorage.getItem(KEY);
    return stored === "light" || stored === "dark" ? stored : "system";
  } catch {
    return "system";
  }
}

/** @param {"system" | "light" | "dark"} choice */
export function chooseTheme(choice) {
  try {
    if (choice === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, choice);
  } catch {
    // Storage is off: the choice holds until the page is left.
  }
  apply(choice);
}

/** Follows the system's theme from now on, unless the reader chose one. */
export function followSystemTheme() {
  system.addEventListener("change", () => apply(chosenTheme()));
}

/** @param {"system" | "light" | "dark"} choice */
function apply(choice) {
  const dark = choice === "dark" || (choice === "system" && system.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.dispatchEvent(new Event(THEME_CHANGED));
}
