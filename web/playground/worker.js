// The engine's thread. Of moves that wait, only the newest is computed; then whether the challenge
// is met; then, a token at a time, the completions.

import {histogram, largest, surprise} from "./measure.js";
import {Model} from "./model.js";
import {OFF} from "./settings.js";
import {gather, remaining} from "./quantize.js";

/** Jobs by kind, the most urgent kind first; a new one takes the place of an older one. */
const waiting = {score: null, check: null, complete: null};
const HANDLERS = {score, check, complete};
let model, busy = false;
/** Number of the completion that the page still wants. */
let wanted = 0;
/** The unchanged model's surprise for the text in use. */
let baseline = {key: "", value: null};

onmessage = async ({data: {type, ...job}}) => {
  if (type === "load") return load(job);
  if (type === "stop") waiting.complete = null;
  else waiting[type] = job;
  if (type === "stop" || type === "complete") wanted = job.id;
  if (!busy && model) work();
};

async function load({files}) {
  try {
    model = await Model.load(files, (name, bytes) => postMessage({type: "progress", name, bytes}));
    postMessage({type: "ready", model: model.description});
    work();
  } catch (error) {
    postMessage({type: "error", message: String(error)});
  }
}

async function work() {
  busy = true;
  for (let kind; (kind = Object.keys(waiting).find(name => waiting[name])); ) {
    const job = waiting[kind];
    waiting[kind] = null;
    try {
      await HANDLERS[kind](job);
    } catch (error) {
      postMessage({type: "error", message: String(error)});
    }
    // newer moves are read before the next job is chosen
    await new Promise(resolve => setTimeout(resolve));
  }
  busy = false;
}

/** A move of a slider, or another text. */
async function score({id, settings, ids, view}) {
  const start = performance.now();
  const inputs = ids.slice(0, -1), targets = ids.slice(1), key = ids.join();
  if (baseline.key !== key) {
    const {logits} = await model.run(inputs, model.unchanged, OFF);
    baseline = {key, value: surprise(logits, targets)};
  }
  model.change(settings);
  const changed = performance.now(), map = `attention.${view.layer}`;
  const outputs = await model.run(inputs, model.changed, settings, ["logits", map]);
  postMessage({
    type: "result", id, settings, baseline: baseline.value, ...surprise(outputs.logits, targets),
    ms: {weights: changed - start, all: performance.now() - start},
  });
  const size = inputs.length ** 2;
  const attention = outputs[map].slice(view.head * size, (view.head + 1) * size);
  const matrix = histogramOf(view.matrix, settings);
  postMessage({type: "pictures", id, settings, view, attention, matrix}, [attention.buffer]);
}

function histogramOf(i, settings) {
  const {name, shape} = model.parameters[i];
  const removed = model.removed(settings.heads)[/\d+/.exec(name)[0]];
  const places = remaining(name, shape, removed, model.headSize);
  const left = [places.rows.length, places.columns.length];
  const before = gather(model.halves[i], shape, places, new Uint16Array(left[0] * left[1]));
  return histogram(before, model.parts[i], left, settings);
}

/** How many tokens of the challenge's target greedy decoding gives before another one. */
async function check({id, settings, ids, nPrompt}) {
  model.change(settings);
  const {logits} = await model.run(ids.slice(0, -1), model.changed, settings);
  const {guesses} = surprise(logits, ids.slice(1));
  const targets = ids.slice(nPrompt), answers = guesses.subarray(nPrompt - 1);
  const wrong = targets.findIndex((target, i) => answers[i] !== target);
  postMessage({type: "checked", id, settings, right: wrong < 0 ? targets.length : wrong});
}

/**
 * One greedy token of each lane; then the job waits again, behind whatever is more urgent.
 * `lanes`: {"unchanged" | "changed": ids so far}.
 */
async function complete({id, settings, left, lanes}) {
  model.change(settings);
  for (const [lane, ids] of Object.entries(lanes)) {
    const {logits} = await model.run(ids, model[lane], lane === "changed" ? settings : OFF);
    const token = largest(logits.subarray((ids.length - 1) * (logits.length / ids.length)));
    ids.push(token);
    if (wanted === id) postMessage({type: "token", id, lane, token});
  }
  if (wanted !== id) return;
  if (left > 1) waiting.complete = {id, settings, left: left - 1, lanes};
  else postMessage({type: "done", id});
}
