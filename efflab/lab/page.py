"""Outputs as mime bundles of several forms, of which the front end shows the richest.

A live front end shows the widget; exported HTML the plotly figure, whose own slider needs no
kernel; a page that shows only images the PNG; a terminal, and nbval, the text.
"""

import base64
import html
import inspect
import os
import textwrap
from functools import lru_cache
from pathlib import Path

import numpy as np

from efflab.base.formats import PLOTLY, WIDGET

_build = {"png": False, "widgets": "EFFLAB_STORED" not in os.environ}
"""With EFFLAB_STORED set, outputs are those of a build without PNGs, for nbval to compare."""

CONFIG = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}
"""Plotly's options for all figures. Its "Share chart" button, which uploads the figure, is off; the
other buttons appear while the mouse is over the figure."""


def prepare_build() -> None:
    """Switch to outputs for storing: figures with a PNG, no live widgets.

    The notebook builder calls it in the kernel before the first cell. The PNG needs kaleido and
    a Chromium; readers need neither.
    """
    _build.update(png=True, widgets=False)
    start_renderer()


def start_renderer() -> None:
    """Start the browser that draws PNGs, once for all of them."""
    import kaleido

    # it would load MathJax from the network, which no figure needs
    kaleido.start_sync_server(mathjax=False, silence_warnings=True)


def emit(bundle: dict, **place) -> None:
    """Show one output in all its forms; `place`: IPython's `display_id`, and `update`."""
    from IPython.display import display

    display(bundle, raw=True, **place)


def render(card: str, **values) -> str:
    """The HTML of a template in `cards`, filled: values are text, a missing one is an error."""
    return _template(card).render(values)


@lru_cache(maxsize=16)
def _template(card: str):
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def escape(value):
        # quotes as in the stored outputs; Jinja would write them otherwise
        return value if isinstance(value, Markup) else Markup(html.escape(str(value)))

    jinja = Environment(autoescape=True, undefined=StrictUndefined, finalize=escape)
    lines = (Path(__file__).parent / "cards" / f"{card}.html").read_text("utf-8").splitlines()
    return jinja.from_string("".join(map(str.strip, lines)))


def emit_html(html: str, text: str, **more) -> None:
    """Show HTML with its text form; `more` holds further mime types as {name: data}."""
    emit({"text/html": html, "text/plain": text, **more})


def widget_view(widget) -> dict:
    """The bundle entry that shows a live widget; {} during a build."""
    if not _build["widgets"]:
        return {}
    return {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


def live() -> bool:
    """Whether live widgets are shown (not during a build)."""
    return _build["widgets"]


def figure_bundle(fig, *, png: bool | None = None, picture=None) -> dict:
    """A figure's mime bundle: plotly JSON rounded to six digits, text, and a PNG in a build.

    `picture`: a different figure for the PNG.
    """
    spec = plain(fig.to_plotly_json())
    spec["config"] = CONFIG
    bundle = {PLOTLY: spec, "text/plain": figure_text(fig)}
    if _build["png"] if png is None else png:
        bundle["image/png"] = base64.b64encode(figure_png(picture or fig)).decode()
    return bundle


def figure_png(fig) -> bytes:
    """The figure as PNG bytes at its own height, drawn by kaleido."""
    import kaleido

    size = dict(format="png", width=800, height=fig.layout.height or 400, scale=1)
    return kaleido.calc_fig_sync(fig.to_plotly_json(), opts=size)


def figure_text(fig) -> str:
    """Title and key numbers (`layout.meta`) of a figure, for those who cannot see it."""
    from efflab.lab.notebook import current
    from efflab.lab.text import number, tr_known

    title = (fig.layout.title.text or "Figure").replace("<br>", " ")
    meta = fig.layout.meta if isinstance(fig.layout.meta, dict) else {}
    shown = [f"  {tr_known(k)}: {number(v)}" for k, v in meta.items() if k not in current.withheld]
    return "\n".join([f"[{title}]", *shown])


def plain(value):
    """Plain JSON values with floats at six significant digits: small, and equal on every machine.

    Plotly's base64 arrays of doubles become 4-byte floats, half as long.
    """
    if isinstance(value, dict):
        is_double = value.get("dtype") == "f8" and "bdata" in value
        return single(value) if is_double else {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def single(array: dict) -> dict:
    """Plotly's typed array of doubles as one of 4-byte floats, at six significant digits."""
    values = np.frombuffer(base64.b64decode(array["bdata"]), "<f8")
    known = np.isfinite(values) & (values != 0)
    size = np.floor(np.log10(np.abs(values, where=known, out=np.ones_like(values))))
    scale = 10.0 ** (5 - size)
    rounded = np.where(known, np.round(values * scale) / scale, values).astype("<f4")
    data = base64.b64encode(rounded.tobytes()).decode()
    return {**array, "dtype": "f4", "bdata": data}


def show_source(*objects) -> None:
    """Show the source of functions or classes, highlighted as the front end highlights code."""
    source = source_of(*objects)
    emit({"text/markdown": f"```python\n{source}\n```", "text/plain": source})


def source_of(*objects) -> str:
    """The source of functions or classes, without indentation, one empty line between two."""
    return "\n\n".join(textwrap.dedent(inspect.getsource(item)).rstrip() for item in objects)
