"""One board for every technique: bytes, time and quality of the same model on one evaluation."""

import math
import re
import textwrap
from itertools import count

from efflab.base.formats import BOARD as MIME
from efflab.base.places import DATA_DIR
from efflab.base.stored import read_board
from efflab.errors import require, require_number, require_one_of, require_positive
from efflab.estimate import Estimate
from efflab.lab import colours, figures, notebook
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
ABOVE, BELOW = 112, 88  # pixels for titles, and for ticks and key
LINE, GAP = 18, 12  # pixels of a line of a name, and between two names
WIDTH = 28  # letters of a line of a name


class Board:
    """The recorded points of data/board.json and those added in this kernel."""

    def __init__(self, path=BOARD_FILE):
        self.path = path
        self.added: list[dict] = []
        self._last: tuple[int | None, str, str, dict] = (None, "", "", {})
        self._numbers = count()

    def recorded(self, model: str) -> list[dict]:
        """Points of one model that built notebooks stored; [] before the first build."""
        return [p for p in read_board(self.path) if p["model"] == model]

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
        """Add a technique's point and show the board of its model, once in a cell.

        `bytes` of the stored weights; `time` of a forward pass over the unchanged model's in the
        same run and `band`, the A/A noise of that run; `quality` as `MODELS` names it.
        `efflab.points` measures all of them. The point is stored in the output as `MIME`;
        `efflab build` collects those.
        """
        require(bool(technique), "technique", technique, "a name")
        require_one_of("model", model, MODELS)
        require_one_of("kind", kind, KINDS)
        require_number("bytes", bytes)
        require_number("band", band)
        require_positive("time", time.mean)
        require_positive("quality", quality.mean)
        numbers = dict(bytes=bytes, **_ends("time", time), band=band, **_ends("quality", quality))
        own = dict(technique=technique, model=model, notebook=notebook.current.number)
        point = plain(own | numbers | dict(kind=kind))
        self.added = [p for p in self.added if _key(p) != _key(point)] + [point]
        self._fold(model)
        self.show(model, **{MIME: point})

    def points(self, model: str) -> list[dict]:
        """This kernel's points, and the recorded ones of notebooks read before this one."""
        mine = [p for p in self.added if p["model"] == model]
        own_keys, here = {_key(p) for p in mine}, notebook.current.number
        read = [p for p in self.recorded(model) if not here or p["notebook"] <= here]
        return [p | {"kind": "recorded"} for p in read if _key(p) not in own_keys] + mine

    def show(self, model: str, **more) -> None:
        """Show one model's board: size, time and quality as a picture, and as text."""
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
        cell, name = _running_cell(), f"efflab-board-{next(self._numbers)}"
        self._last = cell, model, name, more
        place = {} if cell is None else {"display_id": name}
        emit(bundle | {"text/plain": f"{title}\n{text}"} | more, **place)

    def _fold(self, model: str) -> None:
        """Reduce the board that the running cell has shown already to the point stored with it."""
        cell, shown, name, more = self._last
        if cell is not None and (cell, shown) == (_running_cell(), model):
            emit({"text/plain": tr("(the board follows)")} | more, display_id=name, update=True)


def _running_cell() -> int | None:
    """The number of the running cell; None outside of a notebook."""
    shell = notebook.shell()
    return shell and shell.execution_count


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
    """Size, time and quality of the techniques, one below the other, with 95 % intervals.

    Grey behind a time is the A/A noise of the run that measured it; dashed lines are the unchanged
    model. Bold: no other is smaller and as good (Pareto). Hollow: recorded.
    """
    measure, more_is_better = MODELS[model]
    titles = [tr("size (MB)"), tr("time (x baseline)"), tr(measure)]
    titles = [re.sub(r" ?([(（])", r"<br>\1", title) for title in titles]
    best = pareto(points, "bytes", more_is_better)
    names = {_key(p): _row_name(p, bold=p in best) for p in points}
    title = tr("The board: {model} (bold: none is smaller and as good)", model=model)
    fig = figures.panels(titles, title, shared_yaxes=True, horizontal_spacing=0.05)
    bands = [p["band"] for p in points]
    noise = dict(x=[2 * band for band in bands], base=[1 - band for band in bands])
    noise |= dict(y=[names[_key(p)] for p in points], name=tr("A/A noise of its own run"))
    look = dict(orientation="h", width=0.7, marker_color=colours.PALE_GREY, hoverinfo="skip")
    fig.add_bar(**noise, **look, row=1, col=2)
    for kind in dict.fromkeys(p["kind"] for p in points):
        _add_points(fig, [p for p in points if p["kind"] == kind], names)
    for point in points:
        if point["technique"] == BASELINE:
            for column, what in enumerate(("bytes", "time", "quality"), start=1):
                figures.mark(fig, x=_value(point, what), row=1, col=column)
    for column in (1, 2):
        fig.update_xaxes(rangemode="tozero", col=column)
    fig.update_yaxes(autorange="reversed", type="category")
    rows = sum(LINE * (1 + name.count("<br>")) + GAP for name in names.values()) or GAP
    fig.update_layout(height=ABOVE + rows + BELOW, margin=dict(t=ABOVE, b=BELOW))
    return fig.update_layout(legend=figures.legend("below", y=-36 / rows))


def _row_name(point: dict, *, bold: bool) -> str:
    """ "03 · sliding window 64", in lines of about `WIDTH` letters."""
    name = f"{point['notebook']} · {tr_name(point['technique'])}".removeprefix(" · ")
    lines = "<br>".join(textwrap.wrap(name, WIDTH))
    return f"<b>{lines}</b>" if bold else lines


def _value(point: dict, what: str) -> float:
    return point["bytes"] / 1e6 if what == "bytes" else point[what]


def _add_points(fig, points: list[dict], names: dict) -> None:
    """The points of one kind in all three panels; of size there is no interval."""
    kind = points[0]["kind"]
    symbol = "circle-open" if kind == "recorded" else "circle"
    marker = dict(symbol=symbol, size=9, color=colours.BLUE, line=dict(color=colours.BLUE, width=2))
    look = dict(mode="markers", marker=marker, legendgroup=kind, name=tr(kind))
    for column, what in enumerate(("bytes", "time", "quality"), start=1):
        ends = {}
        if what != "bytes":
            values = [[p[what + end] for p in points] for end in ("", "_low", "_high")]
            ends = dict(error_x=figures.error_bars(*values, thickness=1.5, width=3))
        x, y = [_value(p, what) for p in points], [names[_key(p)] for p in points]
        fig.add_scatter(x=x, y=y, row=1, col=column, showlegend=column == 1, **look, **ends)


board = Board()
