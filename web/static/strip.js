// The first page's demonstration: it moves by itself until the reader does.
"use strict";
{
  const MILLISECONDS = 1600;
  const FULL = 10; // bits of surprise at which the colour is full
  const part = (name) => document.getElementById(`strip-${name}`);
  const { tokens, states, none, some } = JSON.parse(part("data").textContent);
  const slider = part("slider");
  const play = part("play");

  const spans = tokens.map((text) => {
    const span = document.createElement("span");
    span.textContent = text;
    return span;
  });
  part("text").append(...spans);

  function show() {
    const { bits, score, bytes, surprise } = states[slider.value];
    const words = bits ? some.replace("{n}", bits) : none;
    part("bits").textContent = words;
    part("size").textContent = (bytes / 1e6).toFixed(1);
    part("score").textContent = score.toFixed(2);
    slider.setAttribute("aria-valuetext", words);
    spans.forEach((span, i) => span.style.setProperty("--heat", Math.min(1, surprise[i] / FULL)));
  }

  let timer = 0;
  function move(isOn) {
    clearInterval(timer);
    timer = isOn ? setInterval(() => {
      slider.value = (Number(slider.value) + 1) % states.length;
      show();
    }, MILLISECONDS) : 0;
    play.textContent = isOn ? play.dataset.pause : play.dataset.play;
  }

  slider.addEventListener("input", () => {
    move(false);
    show();
  });
  play.addEventListener("click", () => move(!timer));
  document.getElementById("strip").hidden = false;
  show();
  move(!matchMedia("(prefers-reduced-motion: reduce)").matches);
}
