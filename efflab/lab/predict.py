"""The reader commits a number before the measurement is shown."""

import math
from dataclasses import dataclass, field

from efflab.errors import require
from efflab.lab import guesses, notebook
from efflab.lab.colours import BLUE, ORANGE
from efflab.lab.page import emit, emit_html, live, plain, render, widget_view
from efflab.lab.text import tr, tr_name, with_unit
from efflab.lab.typed import parse


@dataclass
class Prediction:
    """A question, its unit, and the reader's number once there is one.

    `closed`: no further number is accepted, after one correction or the answer. `secret`: the name
    of a key number that figures withhold until then.
    """

    question: str
    unit: str = ""
    guess: float | None = None
    closed: bool = False
    secret: str = ""
    widget: object = field(default=None, repr=False, compare=False)

    def commit(self, guess) -> None:
        """Take the reader's number, or its one correction; text such as "10x" or "4k" is fine.

        Anything but one number in the question's unit is a `ValueError`. Once the prediction is
        `closed` nothing changes.
        """
        if self.closed:
            return
        number, before = parse(guess, self.unit), self.guess
        self.guess, self.closed = number, before not in (None, number)

    def reveal(self, measured) -> None:
        """Show the measured number beside the reader's; without a guess, folded.

        In a notebook the guess is stored in the reader's own file (`efflab.lab.guesses`).
        """
        require(math.isfinite(float(measured)), "measured", measured, "a finite number")
        notebook.current.withheld.discard(self.secret)
        text = comparison(self.guess, float(measured), self.unit)
        answer = {"question": tr(self.question), "measured": plain(float(measured))}
        if self.guess is None:
            _fold(text, answer)
            return
        emit_html(render("answer", colour=BLUE, text=text, summary=""), text)
        self.closed = True
        if self.widget is not None:
            self.widget.refresh()
        if notebook.shell() is not None:
            guesses.keep(notebook.current.number, self.question, self.guess, float(measured))


def _fold(text: str, answer: dict) -> None:
    """Show an answer without a guess folded; a stored page's text form does not contain it.

    The output's metadata have `answer`, by which the site's page compares its reader's number.
    """
    summary = tr("Say your number first, then run this cell again; or open the answer here.")
    html = render("answer", colour=BLUE, text=text, summary=summary)
    bundle = {"text/html": html, "text/plain": text if live() else summary}
    emit(bundle, metadata={"answer": answer})


def predict(
    question: str, unit: str = "", *, guess: float | None = None, secret: str = ""
) -> Prediction:
    """Ask for a number and keep it: `p = predict(...)`, later `p.reveal(measured)`.

    Shows the question (translated) with a field that takes one number, shows how it was read and
    locks after one correction. Without a live front end only the question is shown; `guess` commits
    from code. `secret`: the key number (a name in `layout.meta`) that would give the answer away,
    which figures leave out of their text until the answer is revealed.
    """
    require(bool(question), "question", question, "a question")
    prediction = Prediction(question, unit, secret=secret)
    notebook.current.withheld.update({secret} - {""})
    if guess is not None:
        prediction.commit(guess)
    title = tr("Predict first: {question}", question=tr(question))
    note = tr("Write your number in the field when you run this cell.")
    html = render("question", colour=ORANGE, title=title, note=note)
    bundle = {"text/html": html, "text/plain": title}
    if live():
        from efflab.lab.field import Field

        prediction.widget = Field(prediction, title)
        bundle |= widget_view(prediction.widget)
    asked = {"question": tr(question), "unit": unit, "unit_name": tr_name(unit)}
    emit(bundle, metadata={"prediction": asked})
    return prediction


def comparison(guess: float | None, measured: float, unit: str = "") -> str:
    """ "You said 2x, it is 24x: 12 times too low", in the language in use."""
    truth = with_unit(measured, unit)
    if guess is None:
        return tr("It is {truth}.", truth=truth)
    numbers = dict(guess=with_unit(guess, unit), truth=truth)
    if guess == measured or (measured and abs(guess / measured - 1) <= 0.1):
        return tr("You said {guess}, it is {truth}: well predicted.", **numbers)
    if guess * measured <= 0:
        return tr("You said {guess}, it is {truth}.", **numbers)
    if abs(guess) < abs(measured):
        said = "You said {guess}, it is {truth}: {factor} times your number."
        return tr(said, **numbers, factor=with_unit(measured / guess, "", 2))
    said = "You said {guess}, it is {truth}: your number is {factor} times too high."
    return tr(said, **numbers, factor=with_unit(guess / measured, "", 2))
