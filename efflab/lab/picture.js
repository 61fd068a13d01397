// Redraws an explorer's picture in place: the plot is the one that the front end's own plotly
// renderer drew, so that no second copy of plotly is loaded. Where there is none (VS Code, Colab),
// `absent` asks the kernel to show each picture as an output instead.
// Milliseconds from each move for a plot to be there: the page may be drawing it anew.
const PATIENCE = 4000;
// Milliseconds after which a kernel that does not answer counts as busy or gone.
const SILENCE = 10000;

// Says each slider's name and value, as they stand beside it, to those who hear the page: noUiSlider
// gives its handles no name, and of a slider over listed values the index.
function describe(explorer) {
  for (const handle of explorer.querySelectorAll(".noUi-handle")) {
    const row = handle.closest(".widget-inline-hbox");
    const text = name => row?.querySelector(name)?.textContent ?? "";
    const said = { "aria-label": text(".widget-label"), "aria-valuetext": text(".widget-readout") };
    for (const [name, value] of Object.entries(said)) {
      if (handle.getAttribute(name) !== value) handle.setAttribute(name, value);
    }
  }
}

// Shows what was taken for a typed number that the slider has not: "333 → 336".
function answerTyped(row) {
  const readout = row.querySelector(".widget-readout");
  const note = row.parentElement.appendChild(document.createElement("span"));
  note.setAttribute("role", "status");
  row.addEventListener("input", () => note.replaceChildren());
  const check = event => {
    if (event.target !== readout || (event.key && event.key !== "Enter")) return;
    const typed = readout.textContent.trim();
    setTimeout(() => {
      const taken = readout.textContent.trim();
      if (typed !== taken && Number(typed) !== Number(taken)) {
        note.textContent = `${typed} → ${taken}`;
      }
    });
  };
  row.addEventListener("keydown", check, true); // before the slider puts its own number there
  row.addEventListener("focusout", check, true);
  row.addEventListener("pointerdown", () => note.replaceChildren());
}

const CHANGES = { subtree: true, childList: true, characterData: true, attributes: true,
  attributeFilter: ["aria-valuetext"] };

export default {
  render({ model, el }) {
    let since = 0;
    let timer = 0;
    let silence = 0;
    const watch = new MutationObserver(() => describe(el.closest(".efflab-explorer") ?? el));
    const answers = new MutationObserver(hear);

    function attend() {
      const explorer = el.closest(".efflab-explorer");
      const controls = explorer?.querySelectorAll(".widget-inline-hbox");
      const answer = explorer?.querySelector(".efflab-answer");
      if (!answer) return setTimeout(attend, 50); // the widget is not in the page yet
      answers.observe(answer, { subtree: true, childList: true, characterData: true });
      for (const row of controls) {
        for (const moved of ["keydown", "pointerdown", "change"]) row.addEventListener(moved, ask);
        if (!row.querySelector(".noUi-handle")) continue;
        watch.observe(row, CHANGES);
        answerTyped(row);
      }
      describe(explorer);
      keepFitted(el.closest(".jp-Notebook") ?? document.body);
    }

    // A kernel that died says nothing, and the front end starts another: a move asks who is there.
    // The answer is the text of another widget, since the kernel's messages to this one are lost
    // if anywidget gave it up.
    function ask() {
      if (silence) return;
      const say = () => el.closest(".efflab-explorer")?.classList.add("efflab-silent");
      silence = setTimeout(say, SILENCE);
      try {
        model.send(performance.now()); // another text each time
      } catch {
        say(); // the front end knows that nobody is there
      }
    }

    function hear() {
      clearTimeout(silence);
      silence = 0;
      el.closest(".efflab-explorer")?.classList.remove("efflab-silent");
    }

    function follow() {
      since = performance.now();
      draw();
    }

    function draw() {
      clearTimeout(timer);
      const { data, layout, config } = model.get("figure");
      if (!data || model.get("absent")) return;
      const plot = el.closest(".efflab-explorer")?.querySelector(".js-plotly-plot");
      if (plot && window.Plotly) {
        drawFitted(plot, { data, layout, config }).then(() => drawn(plot), giveUp);
      } else if (performance.now() - since < PATIENCE) {
        timer = setTimeout(draw, 50);
      } else {
        giveUp();
      }
    }

    function drawn(plot) {
      if (!el.isConnected) return;
      if (!plot.isConnected) return draw(); // the page has put another in its place
      model.set("drawn", model.get("number"));
      model.save_changes();
    }

    function giveUp() {
      model.set("absent", true);
      model.save_changes();
    }

    model.set("ready", true);
    model.save_changes();
    attend();
    model.on("change:number", follow);
    follow(); // after a reload the plot above shows the first picture, this one the last
    return () => {
      clearTimeout(timer);
      clearTimeout(silence);
      watch.disconnect();
      answers.disconnect();
      model.off("change:number", follow);
    };
  },
};
