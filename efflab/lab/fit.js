// Fits a figure to the width that it has on the page. Titles wrap; on a narrow page the panels
// stand under each other, each with its own ticks, and the legend under them; the figure becomes
// as high as that needs.
const NARROW = 700; // pixels of a figure
const PAD = 12;
const LINE = 1.3; // plotly's, as a share of the font's size
const LABELS = 0.38; // of a narrow figure's width, for names on the y axis
const KEY = 48; // pixels of a line's sample beside its name
const OVER = 14; // pixels from a panel to its title: half a tick's number, with an exponent
const GUESS = { left: 64, width: 0, depth: {}, legend: [0, 0] };
const TOP = { yref: "container", y: 1, yanchor: "top", pad: { t: PAD + 5 } };
// Where a line may break: after a word, and after a Chinese character with what closes it.
const HAN = "\\u2e80-\\u9fff\\uff00-\\uffef";
const CLOSING = "、，。：；！？）」』》”";
const WORD = `(?:[${HAN}]|(?:<[^>]*>|[^\\s${HAN}])+)[${CLOSING}]*`;
const PIECE = new RegExp(`${WORD}\\s*|\\s+`, "gu");

const pen = document.createElement("canvas").getContext("2d");

function widthOf(text, font) {
  pen.font = `${font.size}px ${font.family}`;
  return pen.measureText(text.replace(/<[^>]*>/g, "").trimEnd()).width;
}

function wrap(text, font, width) {
  const lines = [];
  for (const line of String(text).split("<br>")) {
    let last = "";
    for (const piece of line.match(PIECE) ?? []) {
      if (last && widthOf(last + piece, font) > width) {
        lines.push(last.trimEnd());
        last = "";
      }
      last += piece;
    }
    lines.push(last);
  }
  return lines.join("<br>");
}

const sum = numbers => numbers.reduce((a, b) => a + b, 0);

const lineCount = text => String(text).split("<br>").length;

// What the layout says and, where it says nothing, its template.
function lookOf(layout) {
  const house = layout.template?.layout ?? {};
  const font = { size: 12, family: "sans-serif", ...house.font, ...layout.font };
  const titleFont = { ...font, size: 17, ...house.title?.font, ...layout.title?.font };
  const margin = { l: 80, r: 80, t: 100, b: 80, ...house.margin, ...layout.margin };
  return { font, titleFont, margin };
}

// The panels in reading order: their axes, and where they stand in the plot's area.
function panelsOf(layout) {
  const names = Object.keys(layout).filter(name => /^xaxis\d*$/.test(name));
  const panels = names.map(x => {
    const y = (layout[x].anchor ?? "y").replace("y", "yaxis");
    const [across, up] = [layout[x].domain ?? [0, 1], layout[y]?.domain ?? [0, 1]];
    return { x, y, across, up };
  });
  const known = panels.filter(({ y }) => layout[y]);
  return known.sort((a, b) => b.up[1] - a.up[1] || a.across[0] - b.across[0]);
}

// The title over a panel, as plotly's `make_subplots` writes it.
function titleOf(panel, layout) {
  const middle = (panel.across[0] + panel.across[1]) / 2;
  return layout.annotations?.find(a => a.xref === "paper" && a.yref === "paper" &&
    a.yanchor === "bottom" && Math.abs(a.x - middle) < 0.01 && Math.abs(a.y - panel.up[1]) < 0.01);
}

// `seen`: pixels of the drawn plot (`look`), for what only a drawing can tell.
function fit(figure, width, seen = GUESS) {
  const copy = structuredClone(figure);
  if (width < Infinity) copy.layout.width = width;
  if (width < NARROW) stack(copy, width, seen);
  else wrapTitles(copy.layout, width, seen);
  return copy;
}

function wrapTitles(layout, width, seen) {
  const { font, titleFont, margin } = lookOf(layout);
  const area = seen.width || width - margin.l - margin.r;
  let added = 0;
  const title = layout.title?.text;
  if (title && widthOf(title, titleFont) > width - seen.left - PAD) {
    const text = wrap(title, titleFont, width - 2 * PAD);
    added += (lineCount(text) - lineCount(title)) * titleFont.size * LINE;
    layout.title = { ...layout.title, text, xref: "container", x: PAD / width };
  }
  const beside = widthOf(title ?? "", titleFont) + seen.legend[0] < width - seen.left - 2 * PAD;
  if (title && layout.legend?.y >= 1 && !beside) Object.assign(layout.title, TOP);
  let grown = 0;
  for (const panel of panelsOf(layout)) {
    const over = titleOf(panel, layout);
    if (!over) continue;
    const overFont = { ...font, ...over.font };
    const text = wrap(over.text, overFont, (panel.across[1] - panel.across[0]) * area);
    grown = Math.max(grown, (lineCount(text) - lineCount(over.text)) * overFont.size * LINE);
    over.text = text;
  }
  const high = layout.height - margin.t - margin.b;
  if (layout.legend?.y >= 1) layout.legend.y += grown / high;
  added += 2 * grown; // the title stands in the middle of the margin
  layout.margin = { ...layout.margin, t: margin.t + added };
  layout.height += added;
}

function stack({ data, layout }, width, seen) {
  const { font, titleFont, margin } = lookOf(layout);
  const panels = panelsOf(layout);
  if (!panels.length) return;
  const area = seen.width || width - GUESS.left - PAD;
  const high = layout.height - margin.t - margin.b;
  for (const panel of panels) {
    freeAxes(layout, panel);
    const names = wrapNames(data, layout, panel, width);
    panel.high = Math.max((panel.up[1] - panel.up[0]) * high, names);
    wrapAxisTitles(layout, panel, area);
    emptyCells(data, layout, panel, area);
    panel.title = titleOf(panel, layout);
  }
  for (const note of layout.annotations ?? []) {
    const noteFont = { ...font, ...note.font };
    const isTitle = panels.some(panel => panel.title === note);
    if (isTitle) note.font = { ...note.font, size: noteFont.size = Math.min(noteFont.size, 14) };
    note.text = wrap(note.text, noteFont, isTitle ? width - 2 * PAD : area);
  }
  for (const trace of data) {
    if (trace.name) trace.name = wrap(trace.name, font, width - 2 * PAD - KEY);
  }
  const text = wrap(layout.title?.text ?? "", titleFont, width - 2 * PAD);
  const head = panel => panel.title ? lineCount(panel.title.text) * 14 * LINE + OVER + PAD / 2 : 0;
  const titleHigh = text ? lineCount(text) * titleFont.size * LINE : 0;
  const top = titleHigh + PAD + head(panels[0]) + PAD / 2;
  const under = panel => (seen.depth[panel.x] ?? 48) + PAD;
  const bottom = under(panels.at(-1)) + seen.legend[1] + (seen.legend[1] ? PAD : 0);

  const between = panels.slice(1).map((panel, i) => under(panels[i]) + head(panel));
  const needed = top + sum(between) + sum(panels.map(panel => panel.high)) + bottom;
  const spare = Math.max(0, layout.height - needed) / panels.length; // never lower than it was
  let total = 0;
  for (const [i, panel] of panels.entries()) {
    panel.high += spare;
    panel.from = total + (i && between[i - 1]);
    total = panel.from + panel.high;
  }
  for (const panel of panels) place(panel, { data, layout }, total, width, seen);
  layout.title = { ...layout.title, text, xref: "container", x: PAD / width, xanchor: "left",
    ...TOP };
  layout.margin = { l: PAD, r: PAD, t: top, b: bottom };
  layout.height = top + total + bottom;
  layout.legend = { ...layout.legend, orientation: "h", xref: "container", x: PAD / width,
    xanchor: "left", yref: "container", y: PAD / 2 / layout.height, yanchor: "bottom" };
}

// An axis that showed no ticks because its neighbour had the same gets its own.
function freeAxes(layout, { x, y }) {
  for (const [name, first] of [[x, "xaxis"], [y, "yaxis"]]) {
    const axis = layout[name];
    if (!axis?.matches || axis.showticklabels !== false) continue;
    delete axis.showticklabels;
    if (!axis.title?.text) axis.title = structuredClone(layout[first]?.title);
  }
}

// Names on the y axis in lines; answers the height that they need.
function wrapNames(data, layout, { y }, width) {
  const axis = layout[y];
  const { font } = lookOf(layout);
  const wrapped = text => wrap(text, font, LABELS * width);
  const id = y.replace("axis", "");
  const traces = data.filter(trace => (trace.yaxis ?? "y") === id && Array.isArray(trace.y));
  const names = new Set(traces.flatMap(trace => trace.y).filter(v => typeof v === "string"));
  let texts = [...names];
  if (axis?.ticktext) texts = axis.ticktext = axis.ticktext.map(wrapped);
  else if (names.size) {
    axis.labelalias = Object.fromEntries(texts.map(name => [name, wrapped(name)]));
    texts = Object.values(axis.labelalias);
  }
  return texts.length * (Math.max(0, ...texts.map(lineCount)) + 0.3) * font.size * LINE;
}

// Numbers that are wider than their cells are left to the hover.
function emptyCells(data, layout, { x }, area) {
  const { font } = lookOf(layout);
  for (const trace of data) {
    if (!trace.texttemplate || !Array.isArray(trace.text?.[0])) continue;
    if ((trace.xaxis ?? "x") !== x.replace("axis", "")) continue;
    const own = { ...font, ...trace.textfont };
    const lines = trace.text.flat().flatMap(text => String(text).split("<br>"));
    const widest = Math.max(...lines.map(line => widthOf(line, own)));
    if (widest > area / trace.text[0].length) delete trace.texttemplate;
  }
}

function wrapAxisTitles(layout, { x, y, high }, area) {
  const { font } = lookOf(layout);
  for (const [axis, room] of [[layout[x], area], [layout[y], high]]) {
    if (axis?.title?.text) axis.title.text = wrap(axis.title.text, font, room);
  }
}

// One panel over the whole width, `panel.from` pixels below the top of an area of `total`.
function place(panel, { data, layout }, total, width, seen) {
  const up = [1 - (panel.from + panel.high) / total, 1 - panel.from / total];
  layout[panel.x].domain = [0, 1];
  layout[panel.y].domain = up;
  if (panel.title) {
    Object.assign(panel.title, { x: 0, xanchor: "left", align: "left", y: up[1],
      xshift: PAD - seen.left, yshift: OVER });
  }
  const id = panel.x.replace("axis", "");
  for (const trace of data) {
    const bar = trace.colorbar ?? trace.marker?.colorbar;
    if (bar && (trace.xaxis ?? "x") === id) {
      Object.assign(bar, { x: 1.02, y: (up[0] + up[1]) / 2, len: up[1] - up[0], thickness: PAD });
    }
  }
}
