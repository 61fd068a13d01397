"""The live picture of an explorer: an output of the front end, then redrawn in place.

A new output for each move would cost the page three drawings: the plot itself, once more to fit
its place, and a PNG of it. Here only the first picture is an output; `picture.js` passes later ones
to the existing plot (`Plotly.react`). It keeps the last one, so that picture and controls agree
after a page reload and in Voila.

`fit.js` and `draw.js` fit every figure of the page to its width, with or without an explorer: on a
narrow page panels are stacked.

If a page is busy for two seconds while it opens, anywidget gives up on a widget, and the kernel's
messages to it are lost. So until `picture.js` has reported, each picture is a new output; so is one
that the page does not acknowledge.
"""

import asyncio
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from efflab.base.formats import PLOTLY
from efflab.lab.page import figure_bundle

ANSWER_SECONDS, GRACE_SECONDS = 5.0, 1.0
"""Time for the page to acknowledge a picture. The grace lets a kernel that was busy until now read
an acknowledgement that has already arrived."""

ROOM = 16
"""Pixels that the output needs around the picture."""


def read_script(name: str) -> str:
    """The text of a script in this folder."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


class Redraw(anywidget.AnyWidget):
    """An invisible widget: its `figure` (plotly JSON) replaces what the plot beside it shows."""

    _esm = "".join(map(read_script, ("fit.js", "draw.js", "picture.js")))
    figure = traitlets.Dict().tag(sync=True)
    number = traitlets.Int(0).tag(sync=True)
    """Number of figures so far."""
    ready = traitlets.Bool(False).tag(sync=True)
    """The page has loaded `picture.js`."""
    drawn = traitlets.Int(0).tag(sync=True)
    """Acknowledged by the page: the number of the figure that it drew last."""
    absent = traitlets.Bool(False).tag(sync=True)
    """The front end reports that it has no plot to redraw."""


class Picture:
    """Shows a figure and its successors; `widget` goes into the explorer's box."""

    def __init__(self, figure):
        layout = {"min_height": _least_height(figure), "width": "100%"}
        self._output = ipywidgets.Output(layout=layout)
        hidden = {"display": "none"}
        self._redraw = Redraw(layout=hidden)
        self._redraw.observe(lambda change: self._show(), "absent")
        answer = ipywidgets.HTML(layout=hidden)
        answer.add_class("efflab-answer")
        # echo: the kernel is alive
        self._redraw.on_msg(lambda redraw, asked, buffers: answer.set_trait("value", str(asked)))
        self._bundle = figure_bundle(figure, png=False)
        self._show()
        self.widget = ipywidgets.VBox([self._output, self._redraw, answer])

    def draw(self, figure) -> None:
        """Show another figure in the same place, adjusting its height."""
        self._output.layout.min_height = _least_height(figure)
        self._bundle = figure_bundle(figure, png=False)
        with self._redraw.hold_sync():
            self._redraw.figure = self._bundle[PLOTLY]
            self._redraw.number += 1
        if self._redraw.absent or not self._redraw.ready:
            self._show()
        else:
            self._expect_answer()

    def _expect_answer(self) -> None:
        """Check later whether the page drew this figure; a script has neither loop nor page."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        number = self._redraw.number
        loop.call_later(ANSWER_SECONDS, loop.call_later, GRACE_SECONDS, self._check_answer, number)

    def _check_answer(self, number: int) -> None:
        if self._redraw.drawn < number == self._redraw.number:
            self._redraw.absent = True

    def _show(self) -> None:
        output = {"output_type": "display_data", "data": self._bundle, "metadata": {}}
        self._output.outputs = (output,)


def _least_height(figure) -> str:
    return f"{figure.layout.height + ROOM}px"
