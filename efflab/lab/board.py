"""One board for every technique: bytes, time and quality of the same model on one evaluation."""

import math

from efflab.base.formats import BOARD as MIME
from efflab.base.stored import read_board
from efflab.data import DATA_DIR
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.lab import colours, figures, notebook
from efflab.lab.labels import place_labels
from efflab.lab.page import emit, figure_bundle, plain
from efflab.lab.tables import table_forms
from efflab.lab.text import KINDS, number, tr, tr_name

BOARD_FILE = DATA_DIR / "board.json"
MODELS = {
    "stdlib-gpt": ("bits per byte (lower is better)", False),
    "MiniLM-L6": ("retrieval MRR (higher is better)", True),
}
"""Model -> (name of its quality, whether more is better)."""
BASELINE = "baseline"
PANEL_PIXELS = (690, 330)  # width and height of one panel, for the labels' places


class Board:
    """The recorded points of data/board.json and those added in this kernel."""

    def __init__(self, path=BOARD_FILE):
        self.path = path
        self.added: list[dict] = []

    def recorded(self, model: str | None = None) -> list[dict]:
        """Points that built notebooks stored, of one model or all; [] before the first build."""
        return [p for p in read_board(self.path) if model in (None, p["model"])]

    def add(
        self,
        *,
        technique: str,
        model: str,
        bytes: float,
        time: Estimate,
        band: float,
        quality: Estimate,
        kind: str = "measured",
    ) -> None:
        """Add a technique's point and show the board of its model.

        `bytes` of the stored weights; `time` of a forward pass over the unchanged model's in the
        same run and `band`, the A/A noise of that run; `quality` as `MODELS` names it.
        `efflab.points` measures all of them. The point is stored in the output as `MIME`;
        `efflab build` collects those.
        """
        require(bool(technique), "technique", technique, "a name")
        require_one_of("model", model, MODELS)
        require_one_of("kind", kind, KINDS)
        for name, value in dict(bytes=bytes, band=band).items():
            require(
                math.isfinite(value) and value >= 0,
                name,
                value,
                "a number of at least {low}",
                low=0,
            )
        for name, estimate in dict(time=time, quality=quality).items():
            is_positive = math.isfinite(estimate.mean) and estimate.mean > 0
            require(is_positive, name, estimate.mean, "a number above {low}", low=0)
        numbers = dict(bytes=bytes, **_ends("time", time), band=band, **_ends("quality", quality))
        own = dict(technique=technique, model=model, notebook=notebook.current.number)
        point = plain(own | numbers | dict(kind=kind))
        self.added = [p for p in self.added if _key(p) != _key(point)] + [point]
        self.show(model, **{MIME: point})

    def points(self, model: str) -> list[dict]:
        """This kernel's points, and the recorded ones of notebooks read before this one."""
        mine = [p for p in self.added if p["model"] == model]
        own_keys, here = {_key(p) for p in mine}, notebook.current.number
        old = [p for p in self.recorded(model) if _key(p) not in own_keys]
        old = [p for p in old if not here or p["notebook"] <= here]
        return [p | {"kind": "recorded"} for p in old] + mine

    def show(self, model: str, **more) -> None:
        """Show one model's board: quality over size and over time, and the numbers as text."""
        points = self.points(model)
        rows = [
            dict(technique=p["technique"], bytes=p["bytes"])
            | {"time / baseline": _with_ends(p, "time", 3)}
            | dict(quality=_with_ends(p, "quality", 4), notebook=p["notebook"], kind=p["kind"])
            for p in points
        ]
        _, text = table_forms(rows)
        bundle = figure_bundle(board_figure(model, points))
        title = bundle["text/plain"].splitlines()[0]
        emit(bundle | {"text/plain": f"{title}\n{text}"} | more)


def _ends(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _with_ends(point: dict, name: str, digits: int) -> str:
    """ "0.52 (0.50 to 0.55)"; the baseline's own has no interval."""
    mean, low, high = (number(point[name + end], digits) for end in ("", "_low", "_high"))
    return mean if low == high else tr("{value} ({low} to {high})", value=mean, low=low, high=high)


def _key(point: dict) -> tuple[str, str]:
    return point["technique"], point["model"]


def pareto(points: list[dict], what: str, more_is_better: bool) -> list[dict]:
    """The Pareto front in `what` (less is better) and quality, by rising `what`.

    >>> cheap, good = dict(bytes=1, quality=2.0), dict(bytes=2, quality=1.0)
    >>> pareto([good, dict(bytes=3, quality=1.5), cheap], "bytes", False) == [cheap, good]
    True
    """
    sign, best, front = (-1 if more_is_better else 1), math.inf, []
    for point in sorted(points, key=lambda p: (p[what], sign * p["quality"])):
        if sign * point["quality"] < best:
            best = sign * point["quality"]
            front.append(point)
    return front


def board_figure(model: str, points: list[dict]):
    """Quality over size and over relative time; up is better; recorded points are hollow.

    A point's symbol and colour are its notebook's, the same on every board; whiskers are 95 %
    intervals, the grey band is the A/A noise, the line is the Pareto front.
    """
    measure, more_is_better = MODELS[model]
    titles = [tr("quality over size"), tr("quality over time")]
    title = tr("The board: {model} (hollow: recorded)", model=model)
    fig = figures.panels(titles, title, rows=2, vertical_spacing=0.14)
    for row, what in enumerate(("bytes", "time"), start=1):
        front = pareto(points, what, more_is_better)
        fig.add_scatter(
            x=[_x(p, what) for p in front],
            y=[p["quality"] for p in front],
            row=row,
            col=1,
            mode="lines",
            line=dict(shape="hv", color=colours.SOFT_GREY, width=2),
            hoverinfo="skip",
            showlegend=False,
        )
        for point in points:
            _add_point(fig, point, what, row)
        place_labels(
            fig,
            [(_x(p, what), p["quality"], tr_name(p["technique"])) for p in points],
            PANEL_PIXELS,
            row=row,
            reverse=not more_is_better,
        )
    band = max((p["band"] for p in points), default=0.0)
    fig.add_vrect(
        x0=1 - band, x1=1 + band, fillcolor=colours.GREY, opacity=0.2, line_width=0, row=2, col=1
    )
    fig.update_xaxes(title_text=tr("size (MB)"), row=1, col=1)
    fig.update_xaxes(title_text=tr("time (x of the baseline's)"), row=2, col=1)
    fig.update_yaxes(title_text=tr(measure))
    fig.update_layout(height=2 * PANEL_PIXELS[1] + 240, showlegend=False)
    return fig


def _x(point: dict, what: str) -> float:
    return point["bytes"] / 1e6 if what == "bytes" else point["time"]


def _add_point(fig, point: dict, what: str, row: int) -> None:
    index = int(point["notebook"] or 0)
    symbol, colour = figures.MARKERS[index % 7], figures.COLOURS[(index + index // 7) % 7]
    symbol += "-open" if point["kind"] == "recorded" else ""
    whiskers = dict(type="data", symmetric=False, color=colour, thickness=1, width=3)
    bars = {"error_y": whiskers | _whiskers(point, "quality")}
    if what == "time":
        bars["error_x"] = whiskers | _whiskers(point, "time")
    name = f"{tr_name(point['technique'])} ({tr(point['kind'])})"
    marker = dict(symbol=symbol, size=11, color=colour, line=dict(color=colour, width=2))
    options = dict(mode="markers", marker=marker, hovertext=name, name=name, showlegend=False)
    fig.add_scatter(x=[_x(point, what)], y=[point["quality"]], row=row, col=1, **options, **bars)


def _whiskers(point: dict, name: str) -> dict:
    """Plotly's lengths of the two arms of a point's interval."""
    mean, low, high = (point[name + end] for end in ("", "_low", "_high"))
    return dict(array=[high - mean], arrayminus=[mean - low])


board = Board()
