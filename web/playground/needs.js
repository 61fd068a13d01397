// What the page needs and may not have; no module, since from a file no module is started.
"use strict";
{
  const missing = location.protocol === "file:" ? "from-disk"
    : typeof WebAssembly !== "object" ? "no-wasm" : "";
  if (missing) document.getElementById(missing).hidden = false;
  document.documentElement.classList.toggle("not-possible", Boolean(missing));
}
