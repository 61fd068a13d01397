// The page: settings from the address, moves to the worker, results to everything that shows them.

import {Challenge} from "./challenge.js";
import {Completion} from "./completion.js";
import {bytesOf, numbersOf, showNumbers, summary} from "./numbers.js";
import {drawAttention, drawHistogram} from "./picture.js";
import {OFF, readAddress, writeAddress} from "./settings.js";
import {Sliders} from "./sliders.js";
import {TextView} from "./text.js";
import {offlineReady} from "./offline.js";
import {Tokenizer} from "./tokens.js";
import {fill, megabytes, number, page} from "./words.js";

const {words} = page, byId = id => document.getElementById(id);
/** Milliseconds without a move after which the models write. */
const REST = 500;
/** Milliseconds within which moves of one slider share an entry of the history. */
const ONE_MOVE = 1000;
const OWN = page.texts.length;

/** Of moves by number: the `latest`, the one that is `shown`, the first one `since` this text. */
const state = {settings: OFF, text: 0, latest: 0, shown: 0, since: 0, ids: "", result: null,
  pictures: null};
let model, tokenizer, worker, completion, challenge, resting, lastMove = {};

const sliders = new Sliders((name, value, isFinal) => {
  const settings = {...state.settings, [name]: value};
  if (value !== state.settings[name]) move(settings);
  if (isFinal) remember(name);
});
const view = new TextView(byId("tokens"), byId("readout"), words, bits => number(bits, 2));

// --- Moves -----------------------------------------------------------------------------------

/** Other settings: the sliders show them, the worker computes them. */
function move(settings) {
  state.settings = settings;
  byId("failure").hidden = true;
  sliders.show(settings);
  markPreset();
  request();
}

/** @param {boolean} [isView] whether only the pictures show something else */
function request(isView = false) {
  state.latest++;
  announce();
  if (!model) return;
  const {ids, isCut} = tokensOfText();
  byId("cut").hidden = !isCut;
  byId("cut").textContent = fill(words.cut, {n: page.mostTokens});
  if (ids.join() !== state.ids) Object.assign(state, {ids: ids.join(), since: state.latest});
  if (ids.length < 2) return; // nothing is written yet
  worker.postMessage({
    type: "score", id: state.latest, settings: state.settings, ids,
    view: {layer: +byId("layer").value, head: +byId("head").value, matrix: +byId("matrix").value},
  });
  challenge.check(state.latest, state.settings);
  if (isView) return;
  clearTimeout(resting);
  completion.stop();
  resting = setTimeout(() => completion.write(tokenizer, promptOf(ids), state.settings), REST);
}

/** Put the settings into the address: an entry of the history for each move, not for each step. */
function remember(name) {
  const words = writeAddress(state.settings, inAddress(state.text)), now = performance.now();
  if (words !== location.hash.slice(1)) {
    const isSame = lastMove.name === name && now - lastMove.at < ONE_MOVE;
    const address = words ? `#${words}` : location.pathname + location.search;
    history[isSame ? "replaceState" : "pushState"](null, "", address);
    lastMove = {name, at: now};
    linkLanguages();
  }
  announce();
}

/** The reader's own text has no place in an address. */
const inAddress = text => (text < OWN ? text : 0);

function followAddress() {
  const hash = location.hash;
  if (hash && !hash.includes("=")) return; // a place on the page
  const {settings, text, illegal} = readAddress(hash);
  if (text || state.text !== OWN) state.text = inAddress(text);
  if (model) byId("text").value = state.text;
  showOwn();
  linkLanguages();
  move(settings);
  byId("failure").hidden = !illegal.length;
  byId("failure").textContent = fill(words.illegal, {names: illegal.join(", ")});
}

/** The page in the other language opens with the same settings. */
function linkLanguages() {
  for (const link of document.querySelectorAll("a[hreflang]")) link.hash = location.hash;
}

/** Mark the link whose settings are in use. */
function markPreset() {
  for (const link of document.querySelectorAll(".presets a")) {
    const isInUse = canonical(link.hash) === writeAddress(state.settings);
    if (isInUse) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

// --- The text --------------------------------------------------------------------------------

/** The text's ids after the mark of a file; at most as many as are scored. */
function tokensOfText() {
  const text = state.text === OWN ? byId("own-text").value : page.texts[state.text].text;
  const ids = [0, ...tokenizer.encode(text)];
  return {ids: ids.slice(0, page.mostTokens + 1), isCut: ids.length > page.mostTokens + 1};
}

/** Where writing begins: after a line in the middle of a function, after one's own text. */
function promptOf(ids) {
  if (state.text === OWN) return ids;
  const texts = tokenizer.texts(ids), half = Math.floor(ids.length / 2);
  const line = texts.findIndex((text, i) => i >= half && text.includes("\n"));
  return ids.slice(0, line < 0 ? half : line);
}

function showOwn() {
  byId("own").hidden = state.text !== OWN;
}

// --- Results ---------------------------------------------------------------------------------

function onResult(result) {
  // older than what is shown, or of another text
  if (result.id <= state.shown || result.id < state.since) return;
  const {ids} = tokensOfText(), texts = tokenizer.texts(ids.slice(1));
  state.shown = result.id;
  state.result = result;
  result.numbers = numbersOf(model, tokenizer, result, ids);
  showNumbers(model, result.numbers, result.settings, ids.length - 1);
  announce();
  const textsOf = guesses => tokenizer.texts([...guesses]);
  view.show(texts, result, textsOf(result.guesses), textsOf(result.baseline.guesses));
}

function onPictures(pictures) {
  state.pictures = pictures;
  requestAnimationFrame(drawPictures);
}

/** #result: what belongs to the address, and only while it does. */
function announce() {
  const box = byId("result"), {result} = state;
  const isCurrent = result?.numbers && result.id === state.latest &&
    writeAddress(result.settings, inAddress(state.text)) === canonical(location.hash);
  if (!isCurrent) return box.removeAttribute("data-json");
  box.dataset.json = JSON.stringify(result.numbers);
  const sentence = summary(model, result.numbers, result.settings);
  if (box.textContent !== sentence) box.textContent = sentence;
}

function canonical(hash) {
  const {settings, text} = readAddress(hash.includes("=") ? hash : "");
  return writeAddress(settings, inAddress(text));
}

function drawPictures() {
  if (!state.pictures) return;
  const {settings, view: {layer, head}, attention, matrix} = state.pictures;
  const removed = model.order.slice(0, settings.heads);
  drawHistogram(matrix, settings);
  drawAttention(attention, settings, removed.some(([i, h]) => i === layer && h === head));
}

// --- Loading ---------------------------------------------------------------------------------

const progress = {};

function onProgress({name, bytes}) {
  progress[name] = bytes;
  const sum = Object.values(progress).reduce((a, b) => a + b, 0);
  byId("progress").value = Math.min(1, sum / page.packedBytes);
  const sentence = sum < page.packedBytes ? words.loading : words.starting;
  byId("progress-words").textContent = fill(
    sentence, {done: megabytes(sum), all: megabytes(page.packedBytes)});
}

/** Names to choose from, each for its place; without those that are false. */
function fillSelect(id, names) {
  const options = names.map((name, i) => name && new Option(name, i));
  byId(id).replaceChildren(...options.filter(Boolean));
  byId(id).addEventListener("change", () => {
    if (id === "text") {
      state.text = +byId(id).value;
      showOwn();
      remember("text");
    }
    request(id !== "text");
  });
}

function onReady(message) {
  model = message.model;
  model.headSize = model.config.d_model / model.config.n_head;
  tokenizer = new Tokenizer(model.vocabulary, model.merges);
  const sizeOf = settings => bytesOf(model, settings).total;
  challenge = new Challenge(worker, tokenizer, sizeOf, settings => {
    move(settings);
    remember("challenge");
  });
  const count = n => Array.from({length: n}, (_, i) => String(i));
  fillSelect("text", [...page.texts.map(({name}) => name), words.ownText]);
  fillSelect("layer", count(model.config.n_layer));
  fillSelect("head", count(model.config.n_head));
  fillSelect("matrix", model.parameters.map(({name, linear}) => linear && matrixName(name)));
  for (const node of byId("main").querySelectorAll("input, select, #reset")) node.disabled = false;
  byId("loading").hidden = true;
  followAddress();
}

/** "layers.0.attention.body.qkv.weight" as readers name it; counted from 0, as in the notebooks. */
function matrixName(name) {
  const [, layer, , , part] = name.split(".");
  return fill(words.matrix, {layer, part: words.parts[part]});
}

function onError({message}) {
  byId("failure").hidden = false;
  byId("failure").textContent = fill(words.failure, {message});
}

const HANDLERS = {
  progress: onProgress, ready: onReady, error: onError,
  result: onResult, pictures: onPictures,
  checked: message => message.id === state.latest && challenge.onChecked(message),
  token: message => completion.onToken(message),
  done: message => completion.onDone(message),
};

function start() {
  if (document.documentElement.classList.contains("not-possible")) return;
  byId("loading").hidden = false;
  new ResizeObserver(([{target}]) => {
    const height = getComputedStyle(target).position === "sticky" ? target.offsetHeight : 0;
    document.documentElement.style.setProperty("--top", `${height}px`);
  }).observe(document.querySelector(".top"));
  worker = new Worker(new URL("worker.js", import.meta.url), {type: "module"});
  worker.onmessage = ({data: {type, ...message}}) => HANDLERS[type](message);
  worker.onerror = event => onError({message: event.message});
  completion = new Completion(worker);
  const files = Object.fromEntries(Object.entries(page.files).map(
    ([name, address]) => [name, new URL(page.root + address, document.baseURI).href]));
  worker.postMessage({type: "load", files});
  addEventListener("hashchange", followAddress);
  byId("reset").addEventListener("click", () => {
    move(OFF);
    remember("reset");
  });
  let typing;
  byId("own-text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => request(), 200);
  });
  byId("colour").addEventListener("change", () => {
    view.mode = byId("colour").value;
    byId("tokens").classList.toggle("both", view.mode === "change");
    byId("legend-surprise").hidden = view.mode === "change";
    byId("legend-change").hidden = view.mode !== "change";
    view.paint();
  });
  document.addEventListener("efflab-theme", drawPictures);
  new ResizeObserver(drawPictures).observe(byId("histogram").parentElement);
  followAddress();
}

await offlineReady();
start();
