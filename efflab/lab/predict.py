"""The reader commits a number before the measurement is shown."""

import math
import re
from dataclasses import dataclass, field
from html import escape

from efflab.errors import require
from efflab.lab import guesses, notebook
from efflab.lab.page import emit, emit_html, live, widget_view
from efflab.lab.text import tr, tr_name, with_unit


@dataclass
class Prediction:
    """A question, its unit, and the reader's number once there is one."""

    question: str
    unit: str = ""
    guess: float | None = None
    widget: object = field(default=None, repr=False, compare=False)

    def commit(self, guess) -> None:
        """Take the reader's number, once; text such as "10x" or "1,000" is fine."""
        if self.guess is None:
            self.guess = parse(guess)

    def reveal(self, measured) -> None:
        """Show the measured number beside the reader's; without a guess, the number alone.

        A guess in a notebook is kept in the reader's own file (`efflab.lab.guesses`).
        """
        require(math.isfinite(float(measured)), "measured", measured, "a finite number")
        text = comparison(self.guess, float(measured), self.unit)
        style = "border-left:5px solid #0072B2;padding:6px 14px;margin:4px 0;font-size:1.1em"
        emit_html(f'<div style="{style}">{escape(text)}</div>', text)
        if self.guess is not None and guesses.in_kernel():
            guesses.keep(notebook.current.number, self.question, self.guess, float(measured))


def predict(question: str, unit: str = "", *, guess: float | None = None) -> Prediction:
    """Ask for a number and keep it: `p = predict(...)`, later `p.reveal(measured)`.

    Shows the question (translated) with a field that takes one number and then locks. Without a
    front end it is only the question; `guess` commits from code.
    """
    require(bool(question), "question", question, "a question")
    prediction = Prediction(question, unit)
    if guess is not None:
        prediction.commit(guess)
    title = tr("Predict first: {question}", question=tr(question))
    note = tr("Write your number in the field when you run this cell.")
    style = "border-left:5px solid #E69F00;padding:6px 14px;margin:4px 0"
    html = f'<div style="{style}"><b>{escape(title)}</b><br><i>{escape(note)}</i></div>'
    bundle = {"text/html": html, "text/plain": title}
    if live():
        prediction.widget = _field(prediction, title, style)
        bundle |= widget_view(prediction.widget)
    emit(bundle)
    return prediction


def parse(text) -> float:
    """The number in what a reader typed; anything else is a `ValueError`.

    >>> parse("1,000 x"), parse("12%"), parse(3)
    (1000.0, 12.0, 3.0)
    """
    if isinstance(text, str):
        found = re.fullmatch(r"\s*([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\D*", text.lower())
        if not found:
            raise ValueError(tr("{text!r} is not a number", text=text))
        text = found[1].replace(",", "")
    value = float(text)
    require(math.isfinite(value), "guess", value, "a finite number")
    return value


def comparison(guess: float | None, measured: float, unit: str = "") -> str:
    """ "You said 2x, it is 24x: 12 times too low", in the language in use."""
    truth = with_unit(measured, unit)
    if guess is None:
        return tr("It is {truth}. You had not written a number: next time, say yours first.",
                  truth=truth)  # fmt: skip
    said = dict(guess=with_unit(guess, unit), truth=truth)
    if guess == measured or (measured and abs(guess / measured - 1) <= 0.1):
        return tr("You said {guess}, it is {truth}: well predicted.", **said)
    if guess * measured > 0:
        low = abs(guess) < abs(measured)
        factor = with_unit(measured / guess if low else guess / measured, "", 2)
        if low:
            return tr("You said {guess}, it is {truth}: {factor} times your number.", **said,
                      factor=factor)  # fmt: skip
        return tr("You said {guess}, it is {truth}: your number is {factor} times too high.",
                  **said, factor=factor)  # fmt: skip
    return tr("You said {guess}, it is {truth}.", **said)


def _field(prediction: Prediction, title: str, style: str):
    """The question, one text field and a line that answers; Enter or leaving the field commits."""
    import ipywidgets as w

    entry = w.Text(
        placeholder=tr("your number, then Enter"),
        description=tr_name(prediction.unit) if prediction.unit else tr("number"),
        continuous_update=False,
        style={"description_width": "initial"},
        layout=w.Layout(width="280px"),
    )
    answer = w.HTML()

    def lock():
        entry.disabled = True
        said = with_unit(prediction.guess, prediction.unit)
        answer.value = escape(tr("Your prediction: {guess}. Now measure.", guess=said))

    def commit(change):
        if prediction.guess is not None or not change["new"].strip():
            return
        try:
            prediction.commit(change["new"])
        except ValueError as error:
            answer.value = f'<span role="alert" style="color:#D55E00">{escape(str(error))}</span>'
        else:
            lock()

    if prediction.guess is not None:
        entry.value = f"{prediction.guess:g}"
        lock()
    entry.observe(commit, names="value")
    heading = w.HTML(f'<div style="{style}"><b>{escape(title)}</b></div>')
    return w.VBox([heading, w.HBox([entry, answer])])
