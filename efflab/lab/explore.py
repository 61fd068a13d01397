"""Explorers: a plain function of keyword values to a figure, and controls that drive it.

Live, the controls stand above a picture that follows them: an `Output` widget whose outputs are
part of its state, so that picture and controls still agree after a page reload and in Voila.
Stored, the same cell is a plotly figure whose own slider shows values computed in advance.
"""

import math
import time
from collections.abc import Callable
from html import escape

from efflab.errors import require_int, require_one_of
from efflab.lab.controls import Slider, bind
from efflab.lab.figures import dress
from efflab.lab.page import emit, figure_bundle, live, widget_view
from efflab.lab.static import with_slider
from efflab.lab.text import tr, tr_name

FAST_SECONDS = 0.05
"""Up to here a picture follows the hand; above, it waits until the control is let go."""
PICKED = "efflab-picked"
STYLE = f"""<style>.{PICKED} .widget-readout {{
pointer-events: none; -webkit-user-modify: read-only; user-modify: read-only; }}</style>"""
"""A slider over listed values ignores what is typed into its readout, and would keep showing it."""


def explore(fn: Callable, *, frames: int = 7, **controls) -> None:
    """Show `fn`'s figure with controls that drive it; `controls` override those of `@explorer`.

    `frames`: how many values of the first control the stored figure's own slider holds (0: none);
    each costs one call of `fn`. Controls are `Slider`, `Choice`, `Toggle` or the shorthands
    (low, high), [options], bool. A wrong one is a `ValueError`.
    """
    require_int("frames", frames, 0)
    emit(Explorer(fn, frames=frames, **controls).bundle())


class Explorer:
    """One explorer: `set(name=value)` moves a control, `figure` and `message` say what it shows."""

    def __init__(self, fn: Callable, *, frames: int = 7, **controls):
        require_int("frames", frames, 0)
        self.fn, self.frames = fn, frames
        bound = bind(fn, controls)
        self.controls = {name: control for name, (control, _) in bound.items()}
        self.values = {name: value for name, (_, value) in bound.items()}
        self.message = ""
        self.figure, self.seconds = self._timed()
        self.widgets, self._notes, self._view = {}, {}, None

    def _timed(self):
        """The first figure, and the best time of up to three calls: caches and neighbours warm."""
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            figure = dress(self.fn(**self.values))
            best = min(best, time.perf_counter() - start)
            if best <= FAST_SECONDS or best > 0.5:
                break
        return figure, best

    def bundle(self) -> dict:
        """All forms of the explorer, for `emit`."""
        bundle = figure_bundle(self.static())
        return (bundle | widget_view(self.view())) if live() else bundle

    def static(self):
        """The figure for pages with no kernel: plotly's own slider moves the first control."""
        name, control = next(iter(self.controls.items()))
        options = dict(label=self.label(name), frames=self.frames)
        return with_slider(self.fn, self.figure, self.values, control, **options)

    def label(self, name: str) -> str:
        """A control's label with its unit, in the language in use."""
        control = self.controls[name]
        text = tr(control.label or name.replace("_", " "))
        return f"{text} ({tr_name(control.unit)})" if control.unit else text

    def set(self, **values) -> None:
        """Move controls, as the reader would."""
        for name, value in values.items():
            require_one_of("control", name, self.controls)
            self.controls[name].check_value(value)
        self.view()
        for name, value in values.items():
            self.widgets[name].value = value

    def view(self):
        """The live widget: one row a control with its note, and the picture under them."""
        if self._view is None:
            self._view = self._build()
        return self._view

    def _build(self):
        import ipywidgets as w

        rows = []
        for name, control in self.controls.items():
            widget = control.widget(self.values[name], self.label(name))
            widget.style.description_width = "initial"
            if hasattr(widget, "continuous_update"):
                widget.continuous_update = self.seconds <= FAST_SECONDS
            widget.layout = w.Layout(width="auto", min_width="320px", max_width="560px")
            if isinstance(control, Slider):
                widget.layout.width = "480px"
            if isinstance(widget, w.SelectionSlider):
                widget.add_class(PICKED)
            widget.observe(lambda change, name=name: self._moved(name, change["new"]), "value")
            self.widgets[name], self._notes[name] = widget, w.HTML()
            rows.append(w.HBox([widget, self._notes[name]]))
        height = self.figure.layout.height + 16
        self._output = w.Output(layout=w.Layout(min_height=f"{height}px", width="100%"))
        self._draw()
        style = w.HTML(STYLE, layout=w.Layout(display="none"))
        box = w.VBox([*rows, self._output, style], layout=w.Layout(width="100%"))
        box.add_class("efflab-explorer")
        return box

    def _moved(self, name: str, value) -> None:
        """Follow one control; what `fn` refuses is said beside it."""
        self.values[name] = value
        slow = self.seconds > FAST_SECONDS
        if slow:
            self._note(name, f"<i>{escape(tr('working ...'))}</i>")
        try:
            self.figure = dress(self.fn(**self.values))
        except (ValueError, TypeError, ArithmeticError) as error:
            self.message = str(error)
            text = escape(self.message)
            self._note(name, f'<span role="alert" style="color:#D55E00">⚠ {text}</span>')
        else:
            self.message = ""
            for other in self._notes:
                self._note(other, "")
            self._draw()

    def _note(self, name: str, html: str) -> None:
        if self._notes[name].value != html:
            self._notes[name].value = html

    def _draw(self) -> None:
        data = figure_bundle(self.figure, png=False)
        shown = {"output_type": "display_data", "data": data, "metadata": {}}
        self._output.outputs = (shown,)
