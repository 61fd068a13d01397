// What every page does: the switch between light and dark, and the offline copy.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** @returns {"light" | "dark"} the theme in use */
function theme() {
  return document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
}

/** Tell the page's scripts ("efflab-theme" on the document) that colours have changed. */
function announce() {
  document.dispatchEvent(new CustomEvent("efflab-theme", { detail: theme() }));
}

const button = document.getElementById("theme");
button.hidden = false;
button.addEventListener("click", () => {
  const chosen = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem("efflab-theme", chosen);
  } catch {
    // it then lasts as long as the page
  }
  announce();
});
dark.addEventListener("change", announce);

if ("serviceWorker" in navigator && location.protocol.startsWith("http")) {
  const { serviceWorker } = navigator;
  if (!serviceWorker.controller) {
    serviceWorker.addEventListener("controllerchange", () => {
      // what this page loaded before the worker was there, from the browser's own cache
      const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
      for (const url of [location.href, ...loaded]) fetch(url, { cache: "force-cache" });
    }, { once: true });
  }
  // without it the site works, but not offline
  serviceWorker.register(`${document.documentElement.dataset.root}sw.js`).catch(() => {});
}
