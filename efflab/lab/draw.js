// Draws figures fitted, and again when their width changes; what a drawing alone can tell.
// What a drawing tells: the plot's area, what stands under each panel, the legend's height.
function look(plot) {
  const full = plot._fullLayout;
  const { l, t, w, h } = full._size;
  const top = plot.querySelector(".main-svg").getBoundingClientRect().top;
  const depth = {};
  for (const { x, up } of panelsOf(full)) {
    const id = x.replace("axis", "");
    const end = top + t + (1 - up[0]) * h;
    const texts = [...plot.querySelectorAll(`.${id}tick text, .${id}title`)];
    for (const [i, note] of (full.annotations ?? []).entries()) {
      if (note.xref.split(" ")[0] !== id) continue;
      texts.push(...plot.querySelectorAll(`.annotation[data-index="${i}"] .annotation-text`));
    }
    const bottoms = texts.map(text => text.getBoundingClientRect().bottom);
    depth[x] = Math.ceil(Math.max(0, ...bottoms.map(bottom => bottom - end)));
  }
  const legend = [full.legend?._width ?? 0, full.legend?._height ?? 0].map(Math.ceil);
  return { left: l, width: w, depth, legend };
}

// Words at points: one that sticks out of its panel, or a label out of the figure, moves into it;
// one that is too wide for it or stands over other words goes, and a hover still says it.
function settle(plot) {
  const notes = plot._fullLayout.annotations;
  const labels = [...plot.querySelectorAll(".annotation")].filter(node => {
    const { xref, yref } = notes[node.dataset.index];
    return xref !== "paper" || yref !== "paper";
  });
  const free = labels.map(node => [node, node.querySelector(".annotation-text-g")]);
  const points = [...plot.querySelectorAll(".textpoint text")].map(node => [node, node]);
  const words = "[class$=tick] text, [class$=title], .annotation, .legend .bg";
  const fixed = [...plot.querySelectorAll(words)];
  const taken = fixed.filter(node => !labels.includes(node)).map(boxOf);
  for (const [whole, text] of [...free, ...points]) {
    whole.style.visibility = "";
    text.style.translate = "";
    const home = boxOf(homeOf(text, plot));
    if (!text.textContent || !over(boxOf(text), home)) continue;
    text.style.translate = inward(boxOf(text), home);
    const box = boxOf(text);
    const fits = box.width <= home.width && !taken.some(other => over(box, other));
    if (fits) taken.push(box);
    else whole.style.visibility = "hidden";
  }
}

const boxOf = node => node.getBoundingClientRect();

function homeOf(text, plot) {
  const id = text.closest(".subplot")?.classList[1];
  return plot.querySelector(id ? `.nsewdrag[data-subplot="${id}"]` : ".main-svg");
}

function over(a, b) {
  const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return across > 1 && up > 2;
}

function inward(box, panel) {
  const shift = (low, high, from, to) => Math.max(from - low, Math.min(0, to - high));
  const across = shift(box.left, box.right, panel.left, panel.right);
  return `${across}px ${shift(box.top, box.bottom, panel.top, panel.bottom)}px`;
}

// Draws a figure as wide as its place; what a drawing tells may change it once or twice more.
// `plot.efflab` remembers the figure as it was asked for, and at which width it was fitted.
async function drawFitted(plot, figure) {
  const width = parseFloat(getComputedStyle(plot).width) || Infinity;
  if (!plot.efflab) {
    plot.on("plotly_afterplot", () => {
      settle(plot);
      redrawAtRest(plot);
    });
  }
  const mine = plot.efflab = { figure, width };
  let fitted = fit(figure, width, plot._fullLayout && look(plot));
  for (let i = 0; i < 4; i++) {
    const said = JSON.stringify(fitted.layout);
    await window.Plotly.react(plot, fitted.data, fitted.layout, figure.config);
    if (plot.efflab !== mine) return; // a newer one came meanwhile
    fitted = fit(figure, width, look(plot));
    if (JSON.stringify(fitted.layout) === said) return;
  }
}

// When a size changes, JupyterLab redraws the plot as well, and between its drawing and ours plotly
// may leave a legend at its place of the old size: once the size rests, all is drawn once more.
const REST = 300;

function redrawAtRest(plot) {
  const { width, height } = plot._fullLayout;
  const size = `${width} ${height}`;
  if (plot.efflabSize === size) return;
  clearTimeout(plot.efflabRest);
  plot.efflabRest = setTimeout(() => {
    plot.efflabSize = size;
    if (plot.isConnected) window.Plotly.redraw(plot);
  }, REST);
}

// Keeps the figures of a page fitted: those there, those to come, and all when their width changes.
// Those with plotly's own slider stay as they are, since its frames say where things stand.
function keepFitted(page) {
  if (page.efflabFits) return;
  page.efflabFits = true;
  const known = new WeakSet();
  const resized = new ResizeObserver(changes => changes.forEach(change => fitAgain(change.target)));
  const find = () => {
    for (const plot of page.querySelectorAll(".js-plotly-plot")) {
      if (known.has(plot) || !plot._fullLayout?._size) continue;
      known.add(plot);
      resized.observe(plot);
    }
  };
  new MutationObserver(find).observe(page, { subtree: true, childList: true });
  find();
}

function fitAgain(plot) {
  const { sliders, height } = plot._fullLayout;
  const width = parseFloat(getComputedStyle(plot).width);
  if (!window.Plotly || !(width > 0) || sliders?.length || plot.efflab?.width === width) return;
  drawFitted(plot, plot.efflab?.figure ?? ownFigure(plot, height));
}

// JupyterLab has taken the height out of the layout.
function ownFigure({ data, layout }, height) {
  return structuredClone({ data, layout: { height, ...layout } });
}
