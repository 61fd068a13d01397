"""The live input field of a prediction: it takes a number, shows how it was read, and locks."""

from html import escape
from pathlib import Path

import anywidget
import ipywidgets as w
import traitlets

from efflab.lab.colours import ORANGE, WRONG
from efflab.lab.page import render
from efflab.lab.text import number, tr, unit_name, with_unit

EXACT = 12
"""Significant digits of the number as understood: enough to lose none that was typed."""


class Onward(anywidget.AnyWidget):
    """An invisible widget: when `taken` grows, the keyboard focus moves to the next cell."""

    _esm = Path(__file__).with_suffix(".js")
    taken = traitlets.Int(0).tag(sync=True)


class Field(w.VBox):
    """The question above a text field; Enter, or leaving the field, commits the number."""

    def __init__(self, prediction, title: str):
        self.prediction = prediction
        self.entry = w.Text(
            placeholder=tr("your number, then Enter"),
            description=unit_name(prediction.unit) or tr("number"),
            continuous_update=False,
            style={"description_width": "initial"},
            layout=w.Layout(width="280px"),
        )
        self.answer, self.onward = w.HTML(), Onward(layout=w.Layout(display="none"))
        if prediction.guess is not None:
            self.entry.value = number(prediction.guess, EXACT)
        self.entry.observe(self._commit, names="value")
        heading = w.HTML(render("question", colour=ORANGE, title=title, note=""))
        # the row wraps, for Chinese and narrow pages
        row = w.HBox([self.entry, self.answer, self.onward], layout=w.Layout(flex_flow="wrap"))
        super().__init__([heading, row])
        self.refresh()

    def refresh(self) -> None:
        """Show how the number was understood, and lock the field once the prediction is closed."""
        guess, closed = self.prediction.guess, self.prediction.closed
        if guess is not None:
            words = with_unit(guess, self.prediction.unit, EXACT)
            text = tr("Understood: {guess}. Now measure.", guess=words)
            if not closed:
                text += " " + tr("(Misread? You can correct it once, until the answer is shown.)")
            self.answer.value = escape(text)
        self.entry.disabled = closed

    def _commit(self, change) -> None:
        if self.prediction.closed or not change["new"].strip():
            return
        try:
            self.prediction.commit(change["new"])
        except ValueError as error:
            alert = f'<span role="alert" style="color:{WRONG}">{escape(str(error))}</span>'
            self.answer.value = alert
            return
        self.onward.taken += 1  # before the field locks, which drops the focus
        self.refresh()
