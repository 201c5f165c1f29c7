// Runs before the first paint, so that a dark page never flashes in white. theme.js does the rest.
(() => {
  let choice = null;
  try {
    choice = localStorage.getItem("mlrs-theme");
  } catch {
    // Storage is off: the system's choice holds.
  }
  const dark = choice === "dark" || (choice !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
