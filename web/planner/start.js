// Says what is missing where the page cannot work; a classic script, since from disk no module runs.
"use strict";
{
  const show = (id) => {
    document.getElementById(id).hidden = false;
    document.getElementById("plan").hidden = true;
  };
  if (location.protocol === "file:") show("from-disk");
  else if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function")
    show("no-engine");
}
