// Prediction boxes: a number in, the stored answer and how far off it was out.
"use strict";
{
  const { tr, parse, comparison } = Numbers;
  const REFUSAL =
    "{text!r} is not a number that I can read: write it like 0.5, 1,000, 4k or 1.2e6.";

  /** The folded answers to a question, further down the page. */
  function answersTo(question) {
    const boxes = [...document.querySelectorAll("[data-answer]")];
    const own = boxes.filter((box) => box.dataset.answer === question);
    return own.flatMap((box) => [...box.querySelectorAll("details")]);
  }

  /** Give one box its field. */
  function addField(box) {
    const asked = JSON.parse(box.dataset.prediction);
    const form = document.createElement("form");
    const field = document.createElement("input");
    Object.assign(field, { type: "text", autocomplete: "off", spellcheck: false, required: true });
    field.setAttribute("aria-label", `${tr("your number")}: ${asked.question}`);
    field.placeholder = tr("your number");
    const unit = document.createElement("span");
    unit.textContent = asked.unit_name.replace(/^个 /, "");
    const button = document.createElement("button");
    Object.assign(button, { className: "button main", textContent: tr("Compare") });
    const result = document.createElement("p");
    result.className = "result";
    result.setAttribute("role", "status");
    form.append(field, unit, button);
    box.append(form, result);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const guess = parse(field.value, asked);
      box.classList.toggle("answered", guess !== null);
      field.setAttribute("aria-invalid", String(guess === null));
      result.textContent =
        guess === null ? tr(REFUSAL, { text: field.value }) : comparison(guess, asked);
      if (guess !== null) for (const answer of answersTo(asked.question)) answer.open = true;
    });
  }

  document.querySelectorAll(".prediction").forEach(addField);
  // what is stored speaks of running a cell
  for (const summary of document.querySelectorAll("[data-answer] summary"))
    summary.textContent = tr("The answer (say your number first)");
}
