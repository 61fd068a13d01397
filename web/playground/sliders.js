// The controls: native inputs whose places stand for steps of the settings.

import {OFF, STEPS, nearestStep} from "./settings.js";
import {fill, page, percent} from "./words.js";

const {words} = page, byId = id => document.getElementById(id);
const NAMES = Object.keys(STEPS);

/** What a slider's place means, in words. */
const MEANING = {
  bits: value => (value ? fill(words.bits, {n: value}) : words.noBits),
  prune: value => (value ? percent(value) : words.none),
  heads: value => (value ? fill(words.heads, {n: value, all: 36}) : words.none),
  window: value => (value ? fill(words.window, {n: value}) : words.noWindow),
  sinks: value => (value ? fill(words.sinks, {n: value}) : words.none),
};

export class Sliders {
  /**
   * @param {(name: string, value: number | string, isFinal: boolean) => void} onMove while a slider
   *   moves, and once more when it is let go
   */
  constructor(onMove) {
    for (const name of NAMES) {
      const input = byId(name), value = () => STEPS[name][+input.value];
      input.max = STEPS[name].length - 1;
      input.addEventListener("input", () => onMove(name, value(), false));
      input.addEventListener("change", () => onMove(name, value(), true));
    }
    for (const input of document.getElementsByName("scale")) {
      input.addEventListener("change", () => onMove("scale", input.value, true));
    }
  }

  /** @param {import("./settings.js").Settings} settings */
  show(settings) {
    for (const name of NAMES) {
      const input = byId(name), place = String(nearestStep(STEPS[name], settings[name]));
      if (input.value !== place) input.value = place;
      input.setAttribute("aria-valuetext", MEANING[name](settings[name]));
      byId(`${name}-value`).textContent = MEANING[name](settings[name]);
      input.closest(".slider").classList.toggle("on", settings[name] !== OFF[name]);
    }
    for (const input of document.getElementsByName("scale")) {
      input.checked = input.value === settings.scale;
    }
    // a scale belongs to rounding, sinks to a window
    byId("scales").classList.toggle("idle", !settings.bits);
    byId("sinks").closest(".slider").classList.toggle("idle", !settings.window);
  }
}
