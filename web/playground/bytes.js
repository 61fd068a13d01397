// Bytes of a model by formula, as `efflab.publishing.site.playground.stored_bytes` counts them.

import {GROUP, roundHalfEven} from "./quantize.js";

/**
 * @typedef {{name: string, shape: number[], linear: boolean}} Parameter
 * @typedef {{total: number, rest: number, weights: number, scales: number, places: number}} Bytes
 *   all; tables, norms and biases; values or codes; scales; one bit a place for what stays
 */

const product = shape => shape.reduce((a, b) => a * b, 1);

/** A parameter's shape without the removed heads: rows of `qkv`, columns of `out`. */
export function shapeWithout(name, shape, nRemoved, headSize) {
  const gone = nRemoved * headSize;
  if (/qkv\.(weight|bias)$/.test(name)) return [shape[0] - 3 * gone, ...shape.slice(1)];
  return name.endsWith("out.weight") ? [shape[0], shape[1] - gone] : shape;
}

/**
 * @param {Parameter[]} parameters
 * @param {number[]} removed heads removed in each layer
 * @returns {Bytes}
 */
export function storedBytes(parameters, settings, removed, headSize) {
  const sum = {total: 0, rest: 0, weights: 0, scales: 0, places: 0};
  for (const {name, shape, linear} of parameters) {
    const layer = /^layers\.(\d+)\./.exec(name);
    const left = shapeWithout(name, shape, layer ? removed[layer[1]] : 0, headSize);
    if (linear) addMatrix(sum, left, settings);
    else sum.rest += 4 * product(left);
  }
  sum.total = sum.rest + sum.weights + sum.scales + sum.places;
  return sum;
}

function addMatrix(sum, [rows, columns], {bits, scale, prune}) {
  const n = rows * columns, width = bits || 32;
  const nScales = {tensor: 1, row: rows, group: rows * Math.ceil(columns / GROUP)}[scale];
  const dense = Math.ceil((n * width) / 8), places = Math.ceil(n / 8);
  const some = Math.ceil(((n - roundHalfEven(prune * n)) * width) / 8);
  const sparse = prune > 0 && places + some < dense;
  sum.weights += sparse ? some : dense;
  sum.places += sparse ? places : 0;
  sum.scales += bits ? 4 * nScales : 0;
}

/** Bytes of the cached keys and values of n tokens in 16 bits: of a window, what it can see. */
export function cacheBytes(n, settings, removed, nHeads, headSize) {
  const {window, sinks} = settings;
  const nTokens = window ? Math.min(n, window + 1 + sinks) : n;
  const left = removed.reduce((sum, gone) => sum + nHeads - gone, 0);
  return 2 * 2 * left * headSize * nTokens;
}
