"""One board for every technique: bytes, milliseconds and quality of the same model."""

import json
import math

from efflab.data import DATA_DIR
from efflab.errors import require, require_one_of
from efflab.lab import figures
from efflab.lab.page import emit, figure_bundle, plain
from efflab.lab.tables import table_forms
from efflab.lab.text import KINDS, tr, tr_name

MIME = "application/vnd.efflab.board+json"
BOARD_FILE = DATA_DIR / "board.json"
MODELS = {
    "stdlib-gpt": ("bits per byte (lower is better)", False),
    "MiniLM-L6": ("retrieval MRR (higher is better)", True),
}
"""Model: (what its quality is, whether more is better)."""


class Board:
    """The recorded points of data/board.json and those added in this kernel."""

    def __init__(self, path=BOARD_FILE):
        self.path = path
        self.added: list[dict] = []

    def recorded(self, model: str | None = None) -> list[dict]:
        """Points that built notebooks stored, of one model or all; none before the first build."""
        points = json.loads(self.path.read_text())["points"] if self.path.exists() else []
        return [p for p in points if model in (None, p["model"])]

    def add(
        self,
        *,
        technique: str,
        model: str,
        bytes: float,
        milliseconds: float,
        baseline_milliseconds: float,
        quality: float,
        kind: str = "measured",
    ) -> None:
        """Drop a technique's point and show the board of its model.

        `bytes` of the stored weights, `milliseconds` of one forward pass and those of the unchanged
        model beside it, `quality` as `MODELS` says; `efflab.points` measures all of them. The point
        is stored in the output as `MIME`; `efflab build` collects those.
        """
        require(bool(technique), "technique", technique, "a name")
        require_one_of("model", model, MODELS)
        require_one_of("kind", kind, KINDS)
        times = dict(milliseconds=milliseconds, baseline_milliseconds=baseline_milliseconds)
        numbers = dict(bytes=bytes, **times, quality=quality)
        for name, value in numbers.items():
            require(math.isfinite(value) and value >= 0, name, value, "a number of at least 0")
        for name, value in times.items():
            require(value > 0, name, value, "a number above 0")
        point = plain(dict(technique=technique, model=model, **numbers, kind=kind))
        self.added = [p for p in self.added if _key(p) != _key(point)] + [point]
        self.show(model, **{MIME: point})

    def points(self, model: str) -> list[dict]:
        """This kernel's points, and the recorded ones that they do not replace."""
        mine = [p for p in self.added if p["model"] == model]
        taken = {_key(p) for p in mine}
        old = [p | {"kind": "recorded"} for p in self.recorded(model) if _key(p) not in taken]
        return old + mine

    def show(self, model: str, **more) -> None:
        """Show one model's board: quality over size and over time, and the numbers as text."""
        points = self.points(model)
        rows = [p | {"time / baseline": round(relative_time(p), 2)} for p in points]
        columns = ["technique", "bytes", "milliseconds", "time / baseline", "quality", "kind"]
        _, text = table_forms(rows, columns)
        bundle = figure_bundle(board_figure(model, points))
        title = bundle["text/plain"].splitlines()[0]
        emit(bundle | {"text/plain": f"{title}\n{text}"} | more)


def _key(point: dict) -> tuple[str, str]:
    return point["technique"], point["model"]


def relative_time(point: dict) -> float:
    """A point's time over the unchanged model's in the same run."""
    return point["milliseconds"] / point["baseline_milliseconds"]


def board_figure(model: str, points: list[dict]):
    """Quality over bytes (MB) and over time; recorded points are hollow.

    Time is relative to the unchanged model's, since notebooks run under different loads.
    """
    measure, more_is_better = MODELS[model]
    titles = [tr("quality over size"), tr("quality over time")]
    title = tr("The board: {model} (hollow: recorded)", model=model)
    fig = figures.panels(titles, title, shared_yaxes=True)
    for i, point in enumerate(points):
        shape = figures.MARKERS[(i + i // 7) % 7]  # with the colour, 49 points look different
        symbol = shape + ("-open" if point["kind"] == "recorded" else "")
        name, kind = tr_name(point["technique"]), tr(point["kind"])
        for column, x in enumerate((point["bytes"] / 1e6, relative_time(point)), start=1):
            colour = figures.COLOURS[i % 7]
            marker = dict(symbol=symbol, size=12, color=colour, line=dict(color=colour, width=2))
            options = dict(mode="markers", name=name, legendgroup=str(i), marker=marker)
            fig.add_scatter(x=[x], y=[point["quality"]], showlegend=column == 1, **options,
                            hovertext=f"{name} ({kind})", row=1, col=column)  # fmt: skip
    fig.update_xaxes(title_text=tr("size (MB)"), rangemode="tozero", col=1)
    fig.update_xaxes(title_text=tr("time (x of the baseline's)"), rangemode="tozero", col=2)
    fig.update_yaxes(title_text=tr(measure), col=1)
    if not more_is_better:
        fig.update_yaxes(autorange="reversed")  # up is better on every board
    # Names are long: two columns below the panels, a line of 20 pixels for every two points.
    below = 20 * -(-len(points) // 2)
    fig.update_layout(
        height=400 + below,
        margin_b=80 + below,
        legend=dict(
            orientation="h",
            entrywidth=0.47,
            entrywidthmode="fraction",
            itemsizing="constant",
            font_size=11,
            x=0,
            y=-0.24,
            yanchor="top",
        ),
    )
    return fig


board = Board()
