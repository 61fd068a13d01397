// The position of the sliders, and how the address says it. 0 is off.

/**
 * @typedef {{bits: number, scale: string, prune: number, heads: number, window: number,
 *   sinks: number}} Settings
 */

/** @type {Settings} */
export const OFF = {bits: 0, scale: "row", prune: 0, heads: 0, window: 0, sinks: 0};
export const SCALES = ["tensor", "row", "group"];
/** Steps of the sliders, from the unchanged model on to the smallest. */
export const STEPS = {
  bits: [0, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2],
  prune: Array.from({length: 20}, (_, i) => i / 20),
  heads: Array.from({length: 31}, (_, i) => i),
  window: [0, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1],
  sinks: [0, 1, 2, 4, 8],
};
const WHOLE = /^\d{1,4}$/, SHARE = /^([01]|0?\.\d{1,17}|1\.0{1,17})$/;
const LEGAL = {
  bits: word => WHOLE.test(word) && (+word === 0 || (+word >= 2 && +word <= 16)),
  scale: word => SCALES.includes(word) || word === "0",
  prune: word => SHARE.test(word),
  heads: word => WHOLE.test(word) && +word <= 30,
  window: word => WHOLE.test(word),
  sinks: word => WHOLE.test(word),
  text: word => WHOLE.test(word),
};

/**
 * The settings of an address's part after "#", the number of its text, and what it says that is
 * not legal, which counts as off.
 * @param {string} hash
 * @returns {{settings: Settings, text: number, illegal: string[]}}
 */
export function readAddress(hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const settings = {...OFF}, illegal = [];
  let text = 0;
  for (const [name, word] of said) {
    if (!(name in LEGAL) || !LEGAL[name](word)) illegal.push(`${name}=${word}`);
    else if (name === "text") text = +word;
    else if (name !== "scale") settings[name] = +word;
    else if (word !== "0") settings.scale = word;
  }
  return {settings, text, illegal};
}

/**
 * What `readAddress` reads; "" for the unchanged model.
 * @param {Settings} settings
 */
export function writeAddress(settings, text = 0) {
  const {bits, scale, prune, heads, window, sinks} = settings;
  const said = {bits, scale: bits && scale, prune, heads, window, sinks: window && sinks, text};
  return new URLSearchParams(Object.entries(said).filter(([, value]) => value)).toString();
}

/** The settings as #result has them: sinks only where there are some. */
export function plain(settings) {
  const {sinks, ...rest} = settings;
  return sinks && settings.window ? settings : rest;
}

/** The place on a slider that is nearest to a value. */
export function nearestStep(steps, value) {
  const distance = step => Math.abs(step - value) + (value !== 0 && step === 0 ? 1e4 : 0);
  return steps.reduce((best, step, i) => (distance(step) < distance(steps[best]) ? i : best), 0);
}
