"""Explorers: a plain function from keyword values to a figure, and controls that drive it.

In a live kernel, the controls are above a picture that follows them. On a stored page, the same
cell is a plotly figure whose own slider and menu show values computed in advance.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from html import escape

from efflab.errors import require_int, require_one_of
from efflab.lab.colours import WRONG
from efflab.lab.controls import Slider, bind, settle
from efflab.lab.figures import dress
from efflab.lab.page import emit, emit_html, figure_bundle, live, widget_view
from efflab.lab.refusals import refusal
from efflab.lab.static import MOST_FRAMES, at_rest, pick, still, with_controls
from efflab.lab.text import tr, unit_name

FAST_SECONDS = 0.05
"""If drawing is faster, the picture follows a drag; else it waits until the control is released."""
REST_SECONDS = 0.2
"""Debounce of slow explorers: of several quick moves only the last is computed."""
REFUSALS = (ValueError, TypeError, ArithmeticError)
"""Exceptions by which an explorer's function refuses values."""
PICKED, WORKING = "efflab-picked", "efflab-working"
"""Classes in `explore.css`."""


def explore(fn: Callable, *, frames: int = 7, most: int = MOST_FRAMES, **controls) -> None:
    """Show `fn`'s figure with controls that drive it; `controls` override those of `@explorer`.

    `frames`: number of values of the first control in the stored figure's slider (0: none); the
    other controls become its menu, in order, as long as there are at most `most` pictures in all.
    Each picture costs a build one call of `fn`. Controls are `Slider`, `Choice`, `Toggle` or the
    shorthands (low, high), [options], bool. An invalid one is a `ValueError`.
    """
    explorer = Explorer(fn, frames=frames, most=most, **controls)
    emit(explorer.bundle())
    if live():
        emit_html(explorer.hint(), explorer.note())


class Explorer:
    """One explorer: `set(name=value)` moves a control; `figure` and `message` are what it shows."""

    def __init__(self, fn: Callable, *, frames: int = 7, most: int = MOST_FRAMES, **controls):
        require_int("frames", frames, 0)
        require_int("most", most, 0)
        self.fn, self.frames, self.most = fn, frames, most
        bound = bind(fn, controls)
        self.controls = {name: control for name, (control, _) in bound.items()}
        self.values = {name: value for name, (_, value) in bound.items()}
        self.message = ""
        self.figure, self.seconds = self._timed()
        self.widgets, self._notes, self._view = {}, {}, None
        self._seen, self._keeps = {self._key()}, True
        self._turn, self._waiting, self._held = 0, None, False

    def _timed(self):
        """(first figure, seconds of a move): the least of its time and its neighbours'."""
        figure, seconds = self._compute(self.values)
        name, control = next(iter(self.controls.items()))
        for value in pick(control.values(), self.values[name], 3):
            if not FAST_SECONDS < seconds < 10 * FAST_SECONDS:
                break
            with suppress(*REFUSALS):
                seconds = min(seconds, self._compute({**self.values, name: value})[1])
        return figure, seconds

    def _compute(self, values: dict):
        """(the figure at these values, seconds to compute it)."""
        start = time.perf_counter()
        return dress(self.fn(**values)), time.perf_counter() - start

    def bundle(self) -> dict:
        """The explorer's mime bundle: a widget and one picture, or a stored grid of figures."""
        if live():
            return figure_bundle(self.figure) | widget_view(self.view())
        options = dict(labels=self._labels(), frames=self.frames, most=self.most)
        stored = with_controls(self.fn, self.figure, self.values, self.controls, **options)
        bundle = figure_bundle(stored, picture=still(self.figure, self.note()))
        bundle["text/plain"] += f"\n  {self.note()}"
        return bundle

    def note(self) -> str:
        """A note for pages without live controls: they do not move, and which values are drawn."""
        return at_rest(self.values, self._labels())

    def hint(self) -> str:
        """The note as HTML that is hidden if the live controls are on the page."""
        more = tr("No controls above? Run this cell again, in a notebook with ipywidgets.")
        self.view()
        return f'<p class="{self._hint_name()}">{escape(more)} {escape(self.note())}</p>'

    def _hint_name(self) -> str:
        return f"efflab-{self.picture.widget.model_id}"

    def _labels(self) -> dict[str, str]:
        return {name: self.label(name) for name in self.controls}

    def label(self, name: str) -> str:
        """A control's label with its unit, in the language in use."""
        control = self.controls[name]
        text = tr(control.label or name.replace("_", " "))
        return f"{text} ({unit_name(control.unit)})" if control.unit else text

    def set(self, **values) -> None:
        """Move controls as the reader would, and draw once at the end."""
        for name, value in values.items():
            require_one_of("control", name, self.controls)
            self.controls[name].check_value(value)
        self.view()
        turn, self._held = self._turn, True
        for name, value in values.items():
            self.widgets[name].value = value
        self._held = False
        if values and (self._turn != turn or self._waiting is not None):
            self._follow(name)

    def view(self):
        """The live widget: a row per control with its note, and the picture below."""
        if self._view is None:
            self._view = self._build()
        return self._view

    def _build(self):
        import ipywidgets as w

        from efflab.lab.picture import Picture

        rows = []
        for name, control in self.controls.items():
            widget = control.widget(self.values[name], self.label(name))
            widget.style.description_width = "initial"
            width = "480px" if isinstance(control, Slider) else "auto"
            least = "min(320px, 100%)"  # phones are narrower
            widget.layout = w.Layout(width=width, min_width=least, max_width="560px")
            if isinstance(widget, w.SelectionSlider):
                widget.add_class(PICKED)
            widget.observe(lambda change, name=name: self._moved(name, change["new"]), "value")
            self.widgets[name], self._notes[name] = widget, w.HTML()
            rows.append(w.HBox([widget, self._notes[name]], layout=w.Layout(flex_flow="wrap")))
        self._pace()
        self.picture = Picture(self.figure)
        style = w.HTML(self._style(), layout=w.Layout(display="none"))
        box = w.VBox([*rows, self.picture.widget, style], layout=w.Layout(width="100%"))
        box.add_class("efflab-explorer")
        return box

    def _style(self) -> str:
        from efflab.lab.picture import read_script

        silent = "The kernel does not answer: it is busy, or it ended; then run this cell again."
        lost = "The kernel no longer knows this explorer: run this cell again."
        style = read_script("explore.css").replace("SILENT", tr(silent)).replace("LOST", tr(lost))
        style = style.replace("ALERT", WRONG).replace("HINT", self._hint_name())
        return f"<style>\n{style}</style>"

    @property
    def is_slow(self) -> bool:
        """Whether a move takes so long that the reader must wait visibly."""
        return self.seconds > FAST_SECONDS

    def _pace(self) -> None:
        """Update the picture during a drag only if drawing is fast enough."""
        for widget in self.widgets.values():
            if hasattr(widget, "continuous_update"):
                widget.continuous_update = not self.is_slow

    def _moved(self, name: str, value) -> None:
        """React to one control: draw at once if that is fast, else after `REST_SECONDS` of rest.

        A slow explorer first returns to the kernel's event loop, which reads the moves that came
        meanwhile; without a loop, as in a script, it draws at once.
        """
        own, is_same = settle(self.controls[name], value)
        if not is_same:
            self.widgets[name].value = own  # triggers this method again
            return
        self.values[name] = own
        self._turn += 1
        self._notes[name].value = f'<i class="{WORKING}">{escape(tr("working ..."))}</i>'
        if self._held:
            return
        has_to_rest = self.is_slow and not (self._keeps and self._key() in self._seen)
        try:
            loop = asyncio.get_running_loop() if has_to_rest else None
        except RuntimeError:
            loop = None
        if loop is None:
            self._follow(name)
        else:
            self._wait_no_longer()
            self._waiting = loop.call_later(REST_SECONDS, self._follow, name)

    def _follow(self, name: str) -> None:
        """Draw the controls' values; if `fn` refuses them, say so beside the control moved last."""
        self._wait_no_longer()
        turn = self._turn
        try:
            figure, seconds = self._compute(dict(self.values))
        except Exception as error:  # any error is shown, and the picture stays
            if turn == self._turn:
                self.message = refusal(error)
                alert = f'<span role="alert" style="color:{WRONG}">⚠ {escape(self.message)}</span>'
                self._show_notes({name: alert})
            return
        self._learn(seconds)
        if turn != self._turn:
            return  # a newer move came meanwhile and draws itself
        self.figure, self.message = figure, ""
        self._show_notes({})
        self.picture.draw(figure)
        if seconds > 4 * FAST_SECONDS and not self.is_slow:
            self.seconds = seconds
            self._pace()

    def _key(self) -> tuple:
        return tuple(self.values.values())

    def _learn(self, seconds: float) -> None:
        """Remember the values, and whether `fn` is fast for values seen before (it caches)."""
        if self._key() in self._seen and seconds > FAST_SECONDS:
            self._keeps = False
        self._seen.add(self._key())

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _show_notes(self, notes: dict[str, str]) -> None:
        """Show these beside their controls, and nothing beside the others."""
        for name, place in self._notes.items():
            place.value = notes.get(name, "")
