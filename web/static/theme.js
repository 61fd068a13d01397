// The reader's own choice of light or dark, which the system's gives way to.
"use strict";
{
  const stored = (() => {
    try {
      return localStorage.getItem("efflab-theme");
    } catch {
      return null; // where the browser keeps nothing, the system's choice stays
    }
  })();
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
}
