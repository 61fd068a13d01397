// The numbers of a result: bits per byte, bytes by formula, and both in a sentence.

import {cacheBytes, storedBytes} from "./bytes.js";
import {OFF, plain, writeAddress} from "./settings.js";
import {change, fill, megabytes, number, page, percent, whole} from "./words.js";

const {words} = page, byId = id => document.getElementById(id);

/** How many heads each layer loses. */
function removedIn(model, settings) {
  const counts = Array(model.config.n_layer).fill(0);
  for (const [layer] of model.order.slice(0, settings.heads)) counts[layer]++;
  return counts;
}

/** Bytes of the model with these settings, by what they are for. */
export const bytesOf = (model, settings) =>
  storedBytes(model.parameters, settings, removedIn(model, settings), model.headSize);

/**
 * What #result has as JSON.
 * @param {number[]} ids of the text, after the mark of a file
 */
export function numbersOf(model, tokenizer, {bits, baseline, settings}, ids) {
  const sum = values => values.reduce((a, b) => a + b, 0);
  const nBytes = sum(ids.slice(1).map(id => tokenizer.nBytes(id)));
  return {
    bits_per_byte: sum(bits) / nBytes, baseline: sum(baseline.bits) / nBytes,
    bytes: bytesOf(model, settings).total, settings: plain(settings),
    text: tokenizer.decode(ids.slice(1)),
  };
}

/** The numbers in large, and the table of bytes. */
export function showNumbers(model, {bits_per_byte: bits, baseline}, settings, nTokens) {
  const bytes = bytesOf(model, settings), all = bytesOf(model, OFF).total;
  const share = bits / baseline - 1;
  byId("bpb").textContent = number(bits, 3);
  byId("bpb-baseline").textContent = fill(words.unchanged, {value: number(baseline, 3)});
  byId("bpb-change").textContent = Math.abs(share) < 0.0005 ? "" : change(share);
  byId("bpb-change").className = `change ${share < 0 ? "better" : "worse"}`;
  byId("size").textContent = megabytes(bytes.total);
  byId("size-baseline").textContent = fill(words.unchanged, {value: megabytes(all)});
  byId("size-change").textContent = bytes.total < all
    ? fill(words.smaller, {ratio: number(all / bytes.total, 1)}) : "";
  showBytes(model, bytes, settings, nTokens);
}

function showBytes(model, bytes, settings, n) {
  const {config, headSize} = model, removed = removedIn(model, settings);
  const rows = [
    [words.bytesWeights, bytes.weights], [words.bytesScales, bytes.scales],
    [words.bytesPlaces, bytes.places], [words.bytesRest, bytes.rest],
    [words.bytesAll, bytes.total],
    [fill(words.bytesCache, {n: whole(n)}),
      cacheBytes(n, settings, removed, config.n_head, headSize)],
  ];
  byId("bytes").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    const cell = document.createElement("td");
    head.scope = "row";
    head.textContent = name;
    cell.textContent = fill(words.nBytes, {n: whole(value)});
    row.append(head, cell);
    return row;
  }));
}

/** What the settings do to size and quality, in words. */
export function summary(model, {bits_per_byte: bits, baseline, bytes}, settings) {
  if (!writeAddress(settings)) return fill(words.summaryUnchanged, {bits: number(baseline, 3)});
  const share = bits / baseline - 1, all = bytesOf(model, OFF).total, values = {
    ratio: number(all / bytes, 1), bits: number(bits, 3), baseline: number(baseline, 3),
    share: percent(Math.abs(share)),
  };
  const size = fill(bytes < all ? words.summarySmaller : words.summarySame, values);
  const cost = Math.abs(share) < 0.005 ? words.summaryFree
    : share > 0 ? words.summaryWorse : words.summaryBetter;
  return fill(words.summary, {size, cost: fill(cost, values)});
}
