// Stored plotly figures: drawn when they come near, with controls of the page's own, titles as text,
// panels one below the other where it is narrow, and the colours of the theme.
"use strict";
{
  /** @typedef {{data: object[], layout: object, frames: object[], config: object}} Spec */

  const NARROW = 700; // pixels of the window, below which panels are stacked
  const NEAR = "800px"; // of the view, where a figure is drawn
  // What lab/static.py adds below a figure, in pixels: a slider, a menu, a note.
  const SLIDER_ROOM = 90, MENU_ROOM = 50, NOTE_ROOM = 24;
  const TITLE_ROOM = 40; // above a figure, for its title
  const PANEL_GAP = 84; // between stacked panels: ticks, axis title, the next panel's title
  const LINE = 17; // height of a line of a panel's title
  const LABEL_WIDTH = 110; // of a category's label where it is narrow
  const TICK_WIDTH = 44; // of a number on an x axis
  const PANEL = "panel"; // the name of a panel's title among the annotations
  const BETWEEN = " · ";
  // lab/colours.py's inks and papers, in the dark
  const DARK = {
    "#222222": "#e7eaee", "#444444": "#b9c1cc", "#767676": "#9aa4b1", "#ffffff": "#1a1e24",
    "#999999": "#838d9b", "#bbbbbb": "#5b6470", "#cccccc": "#4a525d", "#e8e8e8": "#363d48",
    "#e4e4e4": "#2c323b", "#f4f4f4": "#22272f", "rgba(255,255,255,0.8)": "rgba(26,30,36,0.8)",
    "#0072B2": "#3d9bdc",
  };
  const words = document.createElement("canvas").getContext("2d");

  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const isNarrow = () => innerWidth < NARROW;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axes = (layout, letter) =>
    Object.keys(layout).filter((key) => new RegExp(`^${letter}axis\\d*$`).test(key));
  const asText = (html) =>
    new DOMParser().parseFromString(html.replace(/<br\s*\/?>/g, "\n"), "text/html").body.textContent;

  function element(tag, className = "", text = "") {
    return Object.assign(document.createElement(tag), { className, textContent: text });
  }

  /** Text with <br> where a line would be wider than `width` pixels. */
  function wrap(text, width, font) {
    words.font = font;
    const lines = [""];
    for (const piece of text.match(/<br\s*\/?>|[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef<]+\s*|\s+|</g) ?? []) {
      if (/^<br/.test(piece)) lines.push("");
      else if (words.measureText(asText(lines.at(-1) + piece.trimEnd())).width > width && lines.at(-1))
        lines.push(piece);
      else lines[lines.length - 1] += piece;
    }
    return lines.map((line) => line.trim()).join("<br>");
  }

  /** Every colour of a value replaced by its twin in the dark. */
  function darkened(value) {
    if (typeof value === "string") return DARK[value] ?? DARK[value.toUpperCase()] ?? value;
    if (Array.isArray(value)) return value.map(darkened);
    if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, darkened(part)]));
  }

  /** A figure's place on the page: its spec, its controls and the graph. */
  class Plot {
    /** @param {HTMLElement} box */
    constructor(box) {
      this.box = box;
      /** @type {Spec} */
      this.spec = JSON.parse(box.querySelector("script").textContent);
      this.state = { row: 0, frame: null };
      this.readControls();
      this.caption = element("figcaption");
      this.caption.setAttribute("aria-live", "polite");
      this.graph = element("div", "graph");
      this.caption.textContent = asText(this.spec.layout.title?.text ?? "");
      box.append(this.caption);
      if (this.rows.length) box.append(this.controls());
      box.append(this.graph);
      if (this.note) box.append(element("p", "note", asText(this.note.text)));
    }

    /** Take plotly's slider, menu and note out of the layout, and the room below that they had. */
    readControls() {
      const { layout, frames } = this.spec;
      const [slider] = layout.sliders ?? [], [menu] = layout.updatemenus ?? [];
      this.note = (layout.annotations ?? []).find((a) => a.yref === "paper" && a.yshift < -60);
      this.room = slider
        ? SLIDER_ROOM + (menu ? MENU_ROOM : 0) + (this.note ? NOTE_ROOM : 0)
        : 0;
      layout.annotations = (layout.annotations ?? []).filter((a) => a !== this.note);
      const rows = new Map();
      for (const frame of frames) {
        const [row] = frame.name.split("/");
        rows.set(row, [...(rows.get(row) ?? []), frame]);
      }
      this.rows = slider ? [...rows.keys()].sort((a, b) => a - b).map((row) => rows.get(row)) : [];
      this.state.row = menu?.active ?? 0;
      this.state.at = slider?.active ?? 0;
      this.name = slider?.currentvalue.prefix.replace(/[:：]\s*$/, "");
      this.entries = menu ? menu.buttons.map((button) => readEntry(button.label)) : [];
      delete layout.sliders;
      delete layout.updatemenus;
    }

    label(frame) {
      return frame.name.slice(frame.name.indexOf("/") + 1);
    }

    /** The slider and, for each other control, a list of its values. */
    controls() {
      const box = element("div", "controls");
      const slide = element("label", "slide");
      const shown = element("b");
      this.range = Object.assign(element("input"), { type: "range", min: 0, step: 1 });
      this.range.addEventListener("input", () => this.move(this.state.row, Number(this.range.value)));
      const head = element("span", "", `${this.name}: `);
      head.append(shown);
      slide.append(head, this.range);
      box.append(slide);
      this.shown = shown;
      this.lists = Object.keys(this.entries[0] ?? {}).map((name) => this.list(name));
      for (const list of this.lists) box.append(list.parentElement);
      this.showState();
      return box;
    }

    list(name) {
      const label = element("label", "", name);
      const list = element("select");
      for (const value of new Set(this.entries.map((entry) => entry[name])))
        list.append(new Option(value, value));
      list.dataset.name = name;
      list.addEventListener("change", () => this.choose(name, list.value));
      label.append(list);
      return list;
    }

    /** Move to the stored entry with this value that is nearest to the lists' others. */
    choose(name, value) {
      const wanted = { ...this.entries[this.state.row], [name]: value };
      const fits = (entry) =>
        entry[name] === value
          ? Object.keys(wanted).filter((key) => entry[key] === wanted[key]).length
          : -1;
      const scores = this.entries.map(fits);
      const row = scores.indexOf(Math.max(...scores));
      const before = this.label(this.rows[this.state.row][this.state.at]);
      const same = this.rows[row].findIndex((frame) => this.label(frame) === before);
      this.move(row, same < 0 ? Math.min(this.state.at, this.rows[row].length - 1) : same);
    }

    /** Show another stored picture; of several moves before the next one is drawn, the last. */
    move(row, at) {
      this.state = { row, at };
      this.showState();
      cancelAnimationFrame(this.waiting);
      this.waiting = requestAnimationFrame(() => this.draw());
    }

    showState() {
      const frames = this.rows[this.state.row];
      const value = this.label(frames[this.state.at]);
      this.range.max = frames.length - 1;
      this.range.value = this.state.at;
      this.range.setAttribute("aria-valuetext", value);
      this.shown.textContent = value;
      for (const list of this.lists) list.value = this.entries[this.state.row][list.dataset.name];
    }

    /** The picture at the controls' values, as it was stored. */
    picture() {
      const { data, layout } = structuredClone(this.spec);
      const frame = structuredClone(this.rows[this.state.row]?.[this.state.at]);
      frame?.data?.forEach((change, i) => Object.assign(data[i], change));
      Object.assign(layout, frame?.layout);
      layout.annotations = (layout.annotations ?? []).filter((a) => !(a.yref === "paper" && a.yshift < -60));
      return { data, layout };
    }

    draw() {
      const { data, layout } = this.picture();
      this.caption.textContent = asText(layout.title?.text ?? "");
      delete layout.title;
      const base = layout.template.layout;
      layout.margin = { ...base.margin, ...layout.margin };
      layout.margin.b -= this.room;
      layout.margin.t = Math.max(layout.margin.t - TITLE_ROOM, 14);
      layout.height = (layout.height ?? 400) - this.room - TITLE_ROOM;
      layout.width = this.graph.clientWidth;
      delete layout.template.data;
      if (isNarrow()) stack(data, layout);
      const inTheme = isDark() ? darkened : (value) => value;
      Object.assign(base, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
      const shown = { data: inTheme(data), layout: inTheme(layout) };
      shown.layout.template.layout.font.color = colour("--ink");
      this.box.style.minHeight = "";
      Plotly.react(this.graph, shown.data, shown.layout, this.spec.config);
      if (isNarrow()) this.settle(shown);
    }

    /** Once the labels' sizes are known: panels' titles from the left edge, the legend below all. */
    settle({ data, layout }) {
      const { l, t, h } = this.graph._fullLayout._size;
      for (const title of layout.annotations ?? []) if (title.name === PANEL) title.xshift = 4 - l;
      const below = [...this.graph.querySelectorAll(".xaxislayer-above text, .infolayer .xtitle")];
      if (layout.legend?.yref === "paper" && below.length) {
        const lowest = Math.max(...below.map((text) => text.getBoundingClientRect().bottom));
        const bottom = this.graph.getBoundingClientRect().top + t + h;
        layout.legend.y = -(lowest - bottom + 8) / h;
      }
      Plotly.react(this.graph, data, layout, this.spec.config);
    }
  }

  /** "model: gpt2 · fused: yes" as {model: "gpt2", fused: "yes"}. */
  function readEntry(label) {
    return Object.fromEntries(
      label.split(BETWEEN).map((piece) => {
        const at = piece.lastIndexOf(": ");
        return [piece.slice(0, at), piece.slice(at + 2)];
      }),
    );
  }

  /** Panels one below the other in all the width, in reading order; legend below, labels wrapped. */
  function stack(data, layout) {
    const font = `13px ${layout.template.layout.font.family}`;
    const { margin } = layout;
    margin.l = Math.min(margin.l, 48);
    margin.r = Math.min(margin.r, 12);
    const inside = layout.height - margin.t - margin.b;
    const wide = layout.width - margin.l - margin.r;
    const fit = (text, width = wide) => wrap(text.replaceAll("<br>", " "), width, font);
    const panels = axes(layout, "x")
      .map((name) => ({ x: layout[name], id: layout[name].anchor ?? "y" }))
      .map(({ x, id }) => ({ x, id, y: layout[id.replace("y", "yaxis")] }))
      .filter(({ x, y }) => y && !x.overlaying && !y.overlaying);
    for (const panel of panels) {
      const { x, y } = panel;
      const [low, high] = (y.domain ??= [0, 1]);
      panel.high = Math.max((high - low) * inside, wrapLabels(data, panel, fit));
      if (x.title?.text) x.title.text = fit(x.title.text, wide - 60);
      thinTicks(x, Math.floor(wide / TICK_WIDTH));
    }
    if (new Set(panels.map(({ x }) => x.domain?.[0])).size > 1) stackPanels(panels, layout, fit);
    else if (panels.length === 1) layout.height += panels[0].high - inside;
    putLegendBelow(data, layout, (name) => fit(name, wide - 40));
  }

  function stackPanels(panels, layout, fit) {
    panels.sort((a, b) => b.y.domain[1] - a.y.domain[1] || a.x.domain[0] - b.x.domain[0]);
    for (const panel of panels) {
      const middle = (panel.x.domain[0] + panel.x.domain[1]) / 2;
      panel.title = layout.annotations.find(
        (a) =>
          a.xref === "paper" && a.yref === "paper" && a.yanchor === "bottom" &&
          Math.abs(a.x - middle) < 0.02 && Math.abs(a.y - panel.y.domain[1]) < 0.02,
      );
      if (panel.title) panel.title.text = fit(panel.title.text);
      panel.lines = panel.title?.text.split("<br>").length ?? 0;
    }
    const { margin } = layout;
    margin.t = Math.max(14, 12 + LINE * panels[0].lines);
    const gap = ({ lines }, i) => (i ? PANEL_GAP + LINE * Math.max(lines - 1, 0) : 0);
    const all = panels.reduce((sum, panel, i) => sum + panel.high + gap(panel, i), 0);
    let top = all;
    panels.forEach((panel, i) => {
      top -= gap(panel, i);
      const domain = [Math.max((top - panel.high) / all, 0), Math.min(top / all, 1)];
      Object.assign(panel.x, { domain: [0, 1], showticklabels: true });
      Object.assign(panel.y, { domain, showticklabels: true });
      if (panel.title)
        Object.assign(panel.title, {
          name: PANEL, x: 0, xanchor: "left", align: "left", y: domain[1], font: { size: 13 },
        });
      top -= panel.high;
    });
    layout.height = all + margin.t + margin.b;
  }

  /**
   * Categories on a y axis in lines that leave room for the picture.
   *
   * @returns {number} the pixels that they need, one above the other; 0 for numbers
   */
  function wrapLabels(data, { id, y }, fit) {
    const own = data.filter((trace) => (trace.yaxis ?? "y") === id && Array.isArray(trace.y));
    const names = [...new Set(own.flatMap((trace) => trace.y))];
    if (!names.length || y.ticktext || names.some((name) => typeof name !== "string" || !name)) return 0;
    const ticktext = names.map((name) => fit(name, LABEL_WIDTH));
    Object.assign(y, { tickmode: "array", tickvals: names, ticktext });
    const lines = Math.max(...ticktext.map((text) => text.split("<br>").length));
    return names.length * (lines * LINE + 6);
  }

  /** At most so many of an axis's own ticks. */
  function thinTicks(axis, most) {
    const { tickvals, ticktext } = axis;
    if (!Array.isArray(tickvals) || tickvals.length <= most) return;
    const step = Math.ceil(tickvals.length / most);
    axis.tickvals = tickvals.filter((_, i) => i % step === 0);
    axis.ticktext = ticktext?.filter((_, i) => i % step === 0);
  }

  function putLegendBelow(data, layout, wrapped) {
    const named = data.filter((t) => t.name && t.showlegend !== false && t.visible !== false);
    if (layout.showlegend === false || named.length < (layout.showlegend ? 1 : 2)) return;
    for (const trace of named) trace.name = wrapped(trace.name);
    const { margin } = layout;
    const inside = layout.height - margin.t - margin.b;
    layout.legend = {
      ...layout.legend, orientation: "h", x: 0, xanchor: "left", xref: "paper",
      y: -56 / inside, yanchor: "top", yref: "paper",
    };
    const lines = named.reduce((sum, trace) => sum + trace.name.split("<br>").length, 0);
    layout.height = inside + margin.t + 64 + 20 * lines;
  }

  const drawn = new Set();
  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        const plot = new Plot(target);
        plot.draw();
        drawn.add(plot);
      }
    },
    { rootMargin: NEAR },
  );
  document.querySelectorAll("figure.plot").forEach((box) => near.observe(box));

  const redraw = () => drawn.forEach((plot) => plot.draw());
  let width = innerWidth, waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar came or went
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });
  document.addEventListener("efflab-theme", redraw);
}
