// Greedy writing of both models, token by token.

const N_NEW = 28;

export class Completion {
  /** @param {Worker} worker */
  constructor(worker) {
    this.worker = worker;
    this.boxes = {
      unchanged: document.getElementById("write-unchanged"),
      changed: document.getElementById("write-changed"),
    };
    this.start = document.getElementById("complete");
    this.stopper = document.getElementById("stop");
    this.id = 0;
    /** The unchanged model's tokens by prompt, since they do not depend on the sliders. */
    this.known = new Map();
    this.start.addEventListener(
      "click", () => this.write(this.tokenizer, this.prompt, this.settings));
    this.stopper.addEventListener("click", () => this.stop());
  }

  /**
   * @param {import("./tokens.js").Tokenizer} tokenizer
   * @param {number[]} prompt
   */
  write(tokenizer, prompt, settings) {
    Object.assign(this, {tokenizer, prompt, settings});
    this.id++;
    this.key = prompt.join();
    const stored = this.known.get(this.key);
    this.tokens = {unchanged: stored ? [...stored] : [], changed: []};
    const lanes = {changed: [...prompt]};
    if (!stored) lanes.unchanged = [...prompt];
    this.#show();
    this.#setRunning(true);
    this.worker.postMessage(
      {type: "complete", id: this.id, settings, left: N_NEW, lanes});
  }

  stop() {
    this.worker.postMessage({type: "stop", id: 0});
    this.#setRunning(false);
  }

  onToken({id, lane, token}) {
    if (id !== this.id || this.start.disabled === false) return;
    this.tokens[lane].push(token);
    this.#show();
  }

  onDone({id}) {
    if (id !== this.id) return;
    this.known.set(this.key, this.tokens.unchanged);
    this.#setRunning(false);
  }

  #setRunning(isRunning) {
    this.start.disabled = isRunning;
    this.stopper.disabled = !isRunning;
  }

  #show() {
    const {unchanged, changed} = this.tokens;
    const differs = changed.findIndex((token, i) => unchanged[i] !== token && i < unchanged.length);
    this.#fill("unchanged", unchanged, unchanged.length);
    this.#fill("changed", changed, differs < 0 ? changed.length : differs);
  }

  /** A box: the prompt, what is written as the other writes it, and what is not. */
  #fill(lane, tokens, nSame) {
    const texts = this.tokenizer.texts([...this.prompt, ...tokens]);
    const span = (words, name) => {
      const node = document.createElement("span");
      node.className = name;
      node.textContent = words.join("");
      return node;
    };
    const n = this.prompt.length, end = n + nSame;
    this.boxes[lane].replaceChildren(
      span(texts.slice(0, n), "muted"), span(texts.slice(n, end), "new"),
      span(texts.slice(end), "other"));
  }
}
