// Two pictures: a matrix's weights on their grid, and where a head looks.

import {BINS} from "./measure.js";
import {sees} from "./mask.js";
import {fill, number, page, percent, whole} from "./words.js";

const {words} = page, byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function shape(name, values, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

/**
 * Bars: weights by size, over the largest that shares their scale; lines: levels, as high as the
 * share of weights that were rounded to them.
 * @param {{left: Uint32Array, pruned: Uint32Array, levels: Uint32Array | null}} histogram
 */
export function drawHistogram({left, pruned, levels}, settings) {
  const svg = byId("histogram"), width = svg.clientWidth || 520, height = 260;
  const high = height - 50, x = share => 12 + ((share + 1) / 2) * (width - 24);
  const most = Math.max(...left.map((n, i) => n + pruned[i])), bar = (width - 24) / (BINS - 1);
  const nodes = [];
  for (let i = 0; i < BINS; i++) {
    const at = x((2 * i) / (BINS - 1) - 1) - bar / 2, size = n => (n / most) * high;
    const kept = size(left[i]), gone = size(pruned[i]), base = {x: at, width: bar * 0.85};
    nodes.push(shape("rect", {...base, y: high + 10 - kept, height: kept, class: "kept"}));
    nodes.push(shape("rect", {...base, y: high + 10 - kept - gone, height: gone, class: "gone"}));
  }
  if (levels) nodes.push(...levelLines(levels, x, high));
  for (const tick of [-1, 0, 1]) {
    const anchor = {"-1": "start", 0: "middle", 1: "end"}[tick];
    nodes.push(shape("text", {x: x(tick), y: high + 28, "text-anchor": anchor}, number(tick, 0)));
  }
  nodes.push(shape("text", {x: x(0), y: high + 46, "text-anchor": "middle"}, words.histogramAxis));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.replaceChildren(...nodes);
  describeHistogram(svg, {left, pruned, levels}, settings);
}

function levelLines(levels, x, high) {
  const top = Math.max(...levels), middle = (levels.length - 1) / 2, lines = [];
  const isFine = levels.length > 127, name = isFine ? "level fine" : "level";
  levels.forEach((n, code) => {
    if (isFine && !n) return;
    const at = x((code - middle) / middle), base = {x1: at, x2: at, y1: high + 10};
    lines.push(shape("line", {...base, y2: high + 10 - (n / top) * high, class: name}));
    if (!isFine) lines.push(shape("line", {...base, y2: high + 15, class: "tick"}));
  });
  return lines;
}

function describeHistogram(svg, {left, pruned, levels}, settings) {
  const sum = counts => counts.reduce((a, b) => a + b, 0), n = sum(left) + sum(pruned);
  const sentences = [fill(words.histogram, {n: whole(n)})];
  if (sum(pruned)) sentences.push(fill(words.histogramPruned, {share: percent(sum(pruned) / n)}));
  if (levels) {
    const zero = levels[(levels.length - 1) / 2];
    sentences.push(fill(words.histogramLevels, {
      bits: settings.bits, levels: whole(levels.length), used: whole(levels.filter(c => c).length),
      zero: percent(zero / n)}));
  }
  svg.setAttribute("aria-label", sentences.join(" "));
  byId("histogram-words").textContent = sentences.join(" ");
}

/**
 * The map of one head: a row for each token that looks, a column for each that it sees.
 * @param {Float32Array} weights (T, T)
 * @param {boolean} isRemoved
 */
export function drawAttention(weights, settings, isRemoved) {
  const canvas = byId("attention"), n = Math.sqrt(weights.length);
  const colours = Object.fromEntries(["surface", "soft", "blue", "line"].map(readColour));
  const image = new ImageData(n, n), pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      pixels[i * n + j] = j > i ? mix(colours.soft, colours.soft, 0)
        : !sees(i, j, settings) ? mix(colours.line, colours.line, 0)
          : mix(colours.surface, colours.blue, isRemoved ? 0 : Math.sqrt(weights[i * n + j]));
    }
  }
  canvas.width = canvas.height = n;
  canvas.getContext("2d").putImageData(image, 0, 0);
  describeAttention(canvas, weights, n, settings, isRemoved);
}

function readColour(name) {
  const code = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  return [name, [1, 3, 5].map(i => parseInt(code.slice(i, i + 2), 16))];
}

/** A pixel between two colours, in the order that image data have in memory. */
function mix(from, to, share) {
  const [r, g, b] = from.map((c, i) => Math.round(c + share * (to[i] - c)));
  return (255 << 24) | (b << 16) | (g << 8) | r;
}

function describeAttention(canvas, weights, n, settings, isRemoved) {
  let first = 0, distance = 0;
  for (let i = 0; i < n; i++) {
    first += weights[i * n] / n;
    for (let j = 0; j <= i; j++) distance += (weights[i * n + j] * (i - j)) / n;
  }
  const sentences = isRemoved ? [words.headRemoved]
    : [fill(words.attention, {distance: number(distance, 1), first: percent(first)})];
  if (settings.window) sentences.push(words.attentionHidden);
  canvas.setAttribute("aria-label", sentences.join(" "));
  byId("attention-words").textContent = `${words.attentionAxes} ${sentences.join(" ")}`;
}
