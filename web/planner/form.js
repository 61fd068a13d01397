/** The fields, the address that they stand in, and what is wrong with them. */

import { byId, say } from "./page.js";

const NAMES = ["model", "device", "budget", "devices", "tokens", "tflops", "gb", "gbps"];
const OWN = ["tflops", "gb", "gbps"];
const MOST_BYTES = 10_000_000;
const DEEPEST = 40;
/** A longer file is not shown: a field of megabytes makes a browser slow. */
const MOST_SHOWN = 200_000;

/** A file that was dropped or chosen: its text, and its name if that says the model's. */
let file = null;

const value = (name) => byId(name).value.trim();

/** Show or remove what is wrong with a field, beside it. */
export function complain(name, text) {
  byId(`${name}-error`).textContent = text;
  byId(name).toggleAttribute("aria-invalid", Boolean(text));
  if (text) byId(name).setAttribute("aria-invalid", "true");
}

/** Remove all complaints. */
export function quiet() {
  for (const name of [...NAMES, "config"]) complain(name, "");
}

/** The field that a refusal of the model belongs to. */
export const modelField = () => (value("model") ? "model" : "config");

/** A whole number of at least 1; null if the field is empty, NaN with a complaint if it is wrong. */
function whole(name) {
  const text = value(name).replaceAll(",", "");
  if (!text) return null;
  if (/^\d{1,15}$/.test(text) && Number(text) >= 1) return Number(text);
  complain(name, say("Write a whole number of at least 1, such as 4096."));
  return NaN;
}

/** The three numbers of the reader's own device; null as long as one is missing or wrong. */
function own() {
  const texts = OWN.map((name) => value(name).replaceAll(",", ""));
  const numbers = texts.map(Number);
  texts.forEach((text, i) => {
    const isWrong = text && !Number.isFinite(numbers[i]);
    if (isWrong) complain(OWN[i], say("Write a number, such as 24 or 1e3."));
  });
  const isMissing = texts.some((text) => !text);
  if (isMissing) complain("device", say("A device of your own needs all three numbers."));
  if (isMissing || numbers.some((n) => !Number.isFinite(n))) return null;
  return Object.fromEntries(OWN.map((name, i) => [name, numbers[i]]));
}

/**
 * What the fields ask: `card` and `advice` as the engine takes them, null where something is missing
 * or wrong, which is then said beside its field.
 */
export function read() {
  quiet();
  const isOwn = value("device") === "own";
  byId("own").hidden = !isOwn;
  byId("file-name").hidden = value("model") !== "";
  const device = isOwn ? own() : null;
  const model = source();
  const counts = { n_devices: whole("devices") ?? 1, seq_len: whole("tokens") };
  const isWrong = Object.values(counts).some(Number.isNaN) || (isOwn && !device);
  const card = model && { ...model, own: device };
  const advice = card && !isWrong ? { ...card, ...counts, device: value("device") } : null;
  return { card, advice, budget: value("budget"), device: isOwn ? "your own" : value("device") };
}

function source() {
  if (value("model")) return { preset: value("model") };
  const text = file?.text ?? byId("config").value;
  if (depth(text) > DEEPEST) {
    complain("config", say("More than {n} brackets inside each other: no config.json has so many.", { n: DEEPEST }));
    return null;
  }
  if (text.trim()) return file ? { text, name: file.name } : { text };
  complain("config", say("Paste a config.json here, or choose a model above."));
  return null;
}

/** How many brackets stand inside each other, outside of texts: too many overflow Python's stack. */
function depth(text) {
  let open = 0;
  let most = 0;
  for (const [mark] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/g)) {
    if (mark === "[" || mark === "{") most = Math.max(most, ++open);
    else if (mark === "]" || mark === "}") open -= 1;
  }
  return most;
}

/** Take a file that was dropped or chosen. */
export async function take(chosen) {
  byId("model").value = "";
  if (chosen.size > MOST_BYTES) {
    complain("config", say("This file has more than 10 MB: a config.json has a few kB, and weights are not read."));
    return false;
  }
  const text = await chosen.text();
  // config.json is every model's
  const name = chosen.name === "config.json" ? null : chosen.name.replace(/\.json$/i, "");
  file = { text, name };
  byId("config").value = text.length > MOST_SHOWN ? "" : text;
  byId("file-name").textContent = chosen.name;
  return true;
}

/** Forget the file: the reader writes something else. */
export function forgetFile() {
  file = null;
  byId("file-name").textContent = "";
  byId("model").value = "";
}

/** Fill the fields from the address; what it names and there is not is said beside the field. */
export function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const wrong = [];
  for (const name of NAMES) {
    const field = byId(name);
    if (!given.has(name)) {
      field.value = field.dataset.first ?? "";
      continue;
    }
    field.value = given.get(name);
    const isUnknown = field.tagName === "SELECT" && field.value !== given.get(name);
    if (isUnknown) {
      field.value = field.dataset.first ?? "";
      wrong.push([name, say("The address asks for {value}, which is not in this list.", { value: JSON.stringify(given.get(name).slice(0, 60)) })]);
    }
  }
  return wrong;
}

/** Put the fields into the address; not a pasted config, which stays in its field. */
export function toAddress() {
  const given = new URLSearchParams();
  for (const name of NAMES) {
    const isHidden = OWN.includes(name) && value("device") !== "own";
    const isFirst = value(name) === (byId(name).dataset.first ?? "");
    if (value(name) && !isHidden && (name === "model" || !isFirst)) given.set(name, value(name));
  }
  history.replaceState(null, "", value("model") ? `#${given}` : location.pathname + location.search);
}
