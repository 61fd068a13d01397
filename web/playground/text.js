// The text in the colours of its surprise: a list in which arrows move from token to token.

import {fill} from "./words.js";

/** Bits at which the colour is full. */
const FULL = {surprise: 12, change: 4};

/** Spaces and line ends, so that they can be seen. */
export const visibleText = text => text.replaceAll(" ", "·").replaceAll("\n", "↵");

export class TextView {
  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} readout
   * @param {Record<string, string>} words
   * @param {(bits: number) => string} number
   */
  constructor(box, readout, words, number) {
    Object.assign(this, {box, readout, words, number, mode: "surprise", texts: [], at: 0});
    box.addEventListener("pointerover", event => this.#point(event.target));
    box.addEventListener("click", event => this.#point(event.target));
    box.addEventListener("focusin", event => this.#point(event.target));
    box.addEventListener("keydown", event => this.#move(event));
  }

  /**
   * @param {string[]} texts of the tokens
   * @param {{bits: Float32Array, baseline: {bits: Float32Array}}} result
   * @param {string[]} guesses what the model expected in each place
   * @param {string[]} before what the unchanged model expected
   */
  show(texts, result, guesses, before) {
    Object.assign(this, {result, guesses, before});
    if (texts.join("\0") !== this.texts.join("\0")) this.#build(texts);
    this.paint();
  }

  #build(texts) {
    this.texts = texts;
    this.at = 0;
    this.box.replaceChildren(...texts.map((text, i) => {
      const token = document.createElement("span");
      token.role = "option";
      token.tabIndex = i ? -1 : 0;
      token.dataset.i = i;
      token.setAttribute("aria-selected", "false");
      token.textContent = text;
      token.classList.toggle("end", text.includes("\n"));
      return token;
    }));
    this.readout.textContent = this.words.pointAt;
  }

  paint() {
    if (!this.result) return;
    const {bits, baseline} = this.result, isChange = this.mode === "change";
    [...this.box.children].forEach((token, i) => {
      const amount = bits[i] - (isChange ? baseline.bits[i] : 0);
      token.style.setProperty("--heat", Math.min(1, Math.abs(amount) / FULL[this.mode]).toFixed(3));
      token.classList.toggle("better", amount < 0);
      token.setAttribute("aria-label", this.#sentence(i));
    });
    if (this.pointed) this.readout.textContent = this.#sentence(this.at);
  }

  #sentence(i) {
    const {bits, baseline} = this.result, {words, number} = this;
    return fill(words.token, {
      token: visibleText(this.texts[i]), bits: number(bits[i]), before: number(baseline.bits[i]),
      guess: visibleText(this.guesses[i]), guessBefore: visibleText(this.before[i]),
    });
  }

  #point(token) {
    if (!token.dataset?.i) return;
    const options = this.box.children;
    options[this.at].tabIndex = -1;
    options[this.at].setAttribute("aria-selected", "false");
    this.at = +token.dataset.i;
    this.pointed = true;
    token.tabIndex = 0;
    token.setAttribute("aria-selected", "true");
    this.readout.textContent = this.#sentence(this.at);
  }

  #move(event) {
    const last = this.box.children.length - 1;
    const to = {ArrowRight: this.at + 1, ArrowDown: this.at + 1, ArrowLeft: this.at - 1,
      ArrowUp: this.at - 1, Home: 0, End: last}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.box.children[Math.max(0, Math.min(last, to))].focus();
  }
}
