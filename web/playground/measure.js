// What the page shows of a run: surprise, best guesses, a matrix's histogram.

import {HALF, runBorders} from "./quantize.js";

/**
 * Bits of each next token, and the likeliest one in its place.
 * @param {Float32Array} logits (T, V)
 * @param {number[]} targets (T,)
 */
export function surprise(logits, targets) {
  const width = logits.length / targets.length;
  const bits = new Float32Array(targets.length), guesses = new Int32Array(targets.length);
  targets.forEach((target, i) => {
    const row = logits.subarray(i * width, (i + 1) * width);
    guesses[i] = largest(row);
    const most = row[guesses[i]];
    let sum = 0;
    for (let j = 0; j < width; j++) sum += Math.exp(row[j] - most);
    bits[i] = (Math.log(sum) + most - row[target]) / Math.LN2;
  });
  return {bits, guesses};
}

/** Where the largest value is; the first of equal ones. */
export function largest(row) {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
}

export const BINS = 81;

/**
 * How the weights of a matrix lie on their grid, each over the largest that shares its scale.
 * @param {Uint16Array} before of the matrix without removed heads
 * @param {{halves: Uint16Array, codes: Int16Array | null}} part what `lighten` left of it
 * @returns {{left: Uint32Array, pruned: Uint32Array, levels: Uint32Array | null}} counts by bin of
 *   -1 to 1, and by code from the lowest
 */
export function histogram(before, part, shape, settings) {
  const left = new Uint32Array(BINS), pruned = new Uint32Array(BINS);
  const borders = runBorders(...shape, settings.scale);
  for (let r = 0; r < borders.length; r += 2) {
    let most = 0;
    const start = borders[r], end = borders[r + 1];
    for (let i = start; i < end; i++) most = Math.max(most, HALF[before[i] & 32767]);
    for (let i = start; i < end; i++) {
      const share = most ? HALF[before[i]] / most : 0;
      const bin = Math.round(((share + 1) / 2) * (BINS - 1));
      (before[i] && !part.halves[i] ? pruned : left)[bin]++;
    }
  }
  return {left, pruned, levels: part.codes && countCodes(part.codes, settings.bits)};
}

function countCodes(codes, bits) {
  const high = 2 ** (bits - 1) - 1, counts = new Uint32Array(2 * high + 1);
  for (const code of codes) counts[code + high]++;
  return counts;
}
