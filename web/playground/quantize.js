// What the sliders do to a weight matrix, as efflab does it: heads out (`pruning.prune_heads`), the
// smallest weights out (`pruning.magnitude_mask`), the rest rounded (`affine.quantize`, symmetric).

/** The value of each 16-bit float, so that a weight is looked up by its bits. */
export const HALF = Float32Array.from({length: 65536}, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction;
});
const ROUND = 1.5 * 2 ** 52;
export const GROUP = 64;

/** To the nearest whole number; a half goes to the even one, as torch and Python round. */
export function roundHalfEven(x) {
  // the sum has no room for fractions, and is itself rounded so
  return x + ROUND - ROUND;
}

/**
 * Set the `ratio` smallest of 16-bit floats to 0, in place; of equal ones the first go first.
 * @param {Uint16Array} halves
 */
export function prune(halves, ratio) {
  let left = roundHalfEven(ratio * halves.length);
  if (!left) return;
  // without its sign, a float's bits are ordered as its size is
  const counts = new Uint32Array(32768);
  for (let i = 0; i < halves.length; i++) counts[halves[i] & 0x7fff]++;
  let border = 0;
  while (counts[border] < left) left -= counts[border++];
  for (let i = 0; i < halves.length; i++) {
    const size = halves[i] & 0x7fff;
    if (size < border || (size === border && left-- > 0)) halves[i] = 0;
  }
}

/**
 * Where each run of values that share a scale begins and ends in the row-major matrix:
 * [start, end, start, end, ...]. The last group of a row may be shorter.
 */
export function runBorders(rows, columns, scale) {
  const n = rows * columns, width = scale === "tensor" ? n : columns;
  const length = scale === "group" ? GROUP : width, borders = [];
  for (let row = 0; row < n; row += width) {
    for (let i = 0; i < width; i += length) {
      borders.push(row + i, row + Math.min(i + length, width));
    }
  }
  return borders;
}

/**
 * Symmetric codes of a row-major matrix, and the scale of each run.
 * @param {Float32Array} values
 * @param {number} bits 2 to 16
 * @param {Int16Array} codes room for them
 * @returns {{codes: Int16Array, scales: Float32Array, borders: number[]}}
 */
export function quantize(values, rows, columns, bits, scale, codes) {
  const borders = runBorders(rows, columns, scale), high = 2 ** (bits - 1) - 1;
  const scales = new Float32Array(borders.length / 2);
  for (let r = 0; r < scales.length; r++) {
    const start = borders[2 * r], end = borders[2 * r + 1];
    let most = 0;
    for (let i = start; i < end; i++) most = Math.max(most, Math.abs(values[i]));
    const step = Math.fround(most / high) || 1;
    scales[r] = step;
    for (let i = start; i < end; i++) {
      // fround: torch divides in 32 bits
      codes[i] = Math.fround(values[i] / step) + ROUND - ROUND;
    }
  }
  return {codes, scales, borders};
}

/** What the codes stand for, into `values`. */
export function dequantize({codes, scales, borders}, values) {
  for (let r = 0; r < scales.length; r++) {
    const step = scales[r], end = borders[2 * r + 1];
    for (let i = borders[2 * r]; i < end; i++) values[i] = step * codes[i];
  }
}

/**
 * The places of a matrix that are left when heads go: their rows of `qkv`, their columns of `out`.
 * @param {string} name
 * @param {number[]} shape rows and columns
 * @param {number[]} removed heads of this layer
 * @returns {{rows: number[], columns: number[]}}
 */
export function remaining(name, shape, removed, headSize) {
  const all = n => Array.from({length: n}, (_, i) => i);
  const [rows, columns] = shape.map(all), gone = new Set(removed);
  if (gone.size && name.endsWith("qkv.weight")) {
    const width = shape[0] / 3;
    return {rows: rows.filter(i => !gone.has(Math.floor((i % width) / headSize))), columns};
  }
  if (gone.size && name.endsWith("out.weight")) {
    return {rows, columns: columns.filter(i => !gone.has(Math.floor(i / headSize)))};
  }
  return {rows, columns};
}

/** Room for one matrix, used again at every move, so that moves leave no garbage. */
export class Room {
  /** @param {number} size of the whole matrix */
  constructor(size) {
    this.halves = new Uint16Array(size);
    this.codes = new Int16Array(size);
    this.values = new Float32Array(size);
  }
}

/**
 * One matrix as the settings want it, written over `target`, with zeros where heads were.
 * @param {Uint16Array} halves the unchanged matrix
 * @param {{bits: number, scale: string, prune: number}} settings
 * @param {Float32Array} target
 * @param {Room} room
 * @returns {{halves: Uint16Array, codes: Int16Array | null}} of what remains
 */
export function lighten(halves, shape, {rows, columns}, settings, target, room) {
  const size = rows.length * columns.length, whole = size === halves.length;
  const left = gather(halves, shape, {rows, columns}, room.halves.subarray(0, size));
  prune(left, settings.prune);
  const values = whole ? target : room.values.subarray(0, size);
  for (let i = 0; i < size; i++) values[i] = HALF[left[i]];
  const codes = settings.bits ? room.codes.subarray(0, size) : null;
  if (codes) {
    const {bits, scale} = settings;
    dequantize(quantize(values, rows.length, columns.length, bits, scale, codes), values);
  }
  if (!whole) {
    target.fill(0);
    eachPlace(rows, columns, shape[1], (from, to) => (target[to] = values[from]));
  }
  return {halves: left, codes};
}

/** What remains of a matrix, into `left`. */
export function gather(halves, shape, {rows, columns}, left) {
  if (left.length === halves.length) left.set(halves);
  else eachPlace(rows, columns, shape[1], (to, from) => (left[to] = halves[from]));
  return left;
}

/** Call `move(place in what remains, place in the whole matrix)` for each place that remains. */
function eachPlace(rows, columns, width, move) {
  let i = 0;
  for (const row of rows) for (const column of columns) move(i++, row * width + column);
}
