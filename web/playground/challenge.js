// The challenge: the smallest model that still completes a function. The reader's best stays in
// this browser.

import {OFF, writeAddress} from "./settings.js";
import {fill, megabytes, page, whole} from "./words.js";

const {words, challenge} = page, byId = id => document.getElementById(id);
const PLACE = "efflab-playground-best";

function readBest() {
  try {
    const best = JSON.parse(localStorage.getItem(PLACE));
    return Number.isFinite(best?.bytes) ? best : null;
  } catch {
    return null; // nothing stored, or nothing that can be read
  }
}

function writeBest(best) {
  try {
    if (best) localStorage.setItem(PLACE, JSON.stringify(best));
    else localStorage.removeItem(PLACE);
  } catch {
    // it then lasts as long as the page
  }
}

export class Challenge {
  /**
   * @param {Worker} worker
   * @param {import("./tokens.js").Tokenizer} tokenizer
   * @param {(settings: import("./settings.js").Settings) => number} sizeOf bytes
   * @param {(settings: import("./settings.js").Settings) => void} choose
   */
  constructor(worker, tokenizer, sizeOf, choose) {
    Object.assign(this, {worker, sizeOf, best: readBest()});
    this.ids = [0, ...tokenizer.encode(challenge.prompt + challenge.target)];
    this.nPrompt = 1 + tokenizer.encode(challenge.prompt).length;
    byId("challenge-prompt").textContent = challenge.prompt;
    byId("challenge-target").textContent = challenge.target;
    byId("challenge-record").textContent = this.#points(challenge.bytes);
    byId("challenge-how").textContent = fill(words.recordHow, {n: whole(challenge.tried)});
    byId("challenge-show").disabled = false;
    byId("challenge-show").addEventListener("click", () => choose({...OFF, ...challenge.settings}));
    byId("challenge-forget").addEventListener("click", () => this.#keep(null));
    this.#keep(this.best);
  }

  /** Ask whether the model of these settings completes it. */
  check(id, settings) {
    const {ids, nPrompt} = this;
    this.worker.postMessage({type: "check", id, settings, ids, nPrompt});
  }

  onChecked({settings, right}) {
    const all = this.ids.length - this.nPrompt, bytes = this.sizeOf(settings);
    const isDone = right === all, isBest = isDone && !(this.best?.bytes <= bytes);
    byId("challenge-now").textContent = this.#points(bytes);
    byId("challenge-now").className = isDone ? "holds" : "fails";
    const beats = isDone && bytes < challenge.bytes;
    byId("challenge-state").textContent = beats ? words.challengeRecord
      : fill(isDone ? words.challengeDone : words.challengeNot, {right, all});
    if (isBest) this.#keep({bytes, address: writeAddress(settings)});
  }

  #keep(best) {
    this.best = best;
    writeBest(best);
    byId("challenge-best").textContent = best ? this.#points(best.bytes) : "–";
    byId("challenge-forget").disabled = !best;
  }

  /** "3.19 MB, 3.96 times smaller" */
  #points(bytes) {
    const ratio = (this.sizeOf(OFF) / bytes).toFixed(2);
    return fill(words.points, {size: megabytes(bytes), ratio});
  }
}
