"""The board: what is shown, stored and refused."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

import efflab_rooms
from efflab import lab
from efflab.base.formats import PLOTLY
from efflab.estimate import Estimate
from efflab.lab import text
from efflab.lab.board import MIME as BOARD_MIME
from efflab.lab.board import Board, board_figure

POINT = dict(technique="int8", model="stdlib-gpt", bytes=3e6, band=0.1) | dict(
    time=Estimate(0.5, 0.45, 0.6), quality=Estimate(1.5, 1.4, 1.6)
)
STORED = dict(technique="int8", model="stdlib-gpt", notebook="09", bytes=3e6, band=0.1) | dict(
    time=0.5, time_low=0.45, time_high=0.6, quality=1.5, quality_low=1.4, quality_high=1.6
)
AT_ONE = dict(time=1.0, time_low=1.0, time_high=1.0)
BASELINE = STORED | AT_ONE | dict(technique="baseline", notebook="00", bytes=12e6, quality=1.4)


@pytest.fixture
def recorded_board(tmp_path):
    """A board on which notebooks 00 and 11 have left a point."""
    later = STORED | dict(technique="pruned", notebook="11")
    path = tmp_path / "board.json"
    points = [p | dict(kind="measured") for p in (BASELINE, later)]
    path.write_text(json.dumps({"points": points}))
    lab.use_notebook("09_quantization", {}, {})
    yield Board(path)
    lab.notebook.current.name = ""


def test_the_board_keeps_recorded_points_and_replaces_its_own(shown, recorded_board):
    recorded_board.add(**POINT)
    recorded_board.add(**POINT | {"quality": Estimate(1.6, 1.5, 1.7)})
    points = recorded_board.points("stdlib-gpt")
    assert [(p["technique"], p["quality"], p["kind"]) for p in points] == [
        ("baseline", 1.4, "recorded"),
        ("int8", 1.6, "measured"),
    ]
    assert recorded_board.points("MiniLM-L6") == []
    wanted = STORED | dict(quality=1.6, quality_low=1.5, quality_high=1.7, kind="measured")
    assert shown[1][BOARD_MIME] == wanted
    assert "0.5 (0.45 to 0.6)" in shown[1]["text/plain"]


def test_a_damaged_board_is_named(recorded_board):
    (good, _) = json.loads(recorded_board.path.read_text())["points"]
    for wrong, message in (
        ([good | dict(time=None)], "point: time=None: expected a number"),
        ([good | dict(quality=2.0)], r"quality=2\.0: expected a number in its interval"),
        ([good | dict(bytes="12")], "bytes='12': expected a number"),
        ([good | dict(technique=None)], "technique=None: expected a text"),
        ([{"technique": "t"}], r"point=\['technique'\]: expected \['band'"),
        ([None], "point=None: expected an object"),
        (None, "points=None: expected a list"),
    ):
        recorded_board.path.write_text(json.dumps({"points": wrong}))
        with pytest.raises(ValueError, match=f"board.json is damaged .*{message}.*efflab build"):
            recorded_board.points("stdlib-gpt")


def test_points_of_notebooks_not_yet_read_stay_hidden(recorded_board):
    def names():
        return [p["technique"] for p in recorded_board.points("stdlib-gpt")]

    assert names() == ["baseline"]
    lab.notebook.current.name = "11_pruning"
    assert names() == ["baseline", "pruned"]


def marks_of(fig):
    """The figure's points by kind and panel: {("recorded", "x2"): trace}."""
    return {(t.legendgroup, t.xaxis): t for t in fig.data if t.type == "scatter"}


def test_recorded_points_are_hollow_and_the_front_is_bold():
    worse = STORED | dict(technique="worse", notebook="10", bytes=13e6, kind="recorded")
    points = [BASELINE | {"kind": "recorded"}, worse, STORED | {"kind": "measured"}]
    marks = marks_of(board_figure("stdlib-gpt", points))
    assert marks["recorded", "x"].marker.symbol == "circle-open"
    assert marks["measured", "x"].marker.symbol == "circle"
    assert marks["recorded", "x"].y == ("<b>00 · baseline</b>", "10 · worse")
    assert marks["measured", "x"].y == ("<b>09 · int8</b>",)


def test_the_board_draws_points_with_their_intervals_and_their_own_bands():
    points = [BASELINE | {"kind": "recorded", "band": 0.3}, STORED | {"kind": "measured"}]
    fig = board_figure("stdlib-gpt", points)
    marks = marks_of(fig)
    assert [marks["recorded", x].x for x in ("x", "x2", "x3")] == [(12.0,), (1.0,), (1.4,)]
    assert [marks["measured", x].x for x in ("x", "x2", "x3")] == [(3.0,), (0.5,), (1.5,)]
    assert marks["measured", "x2"].error_x.array == pytest.approx((0.1,))
    assert marks["measured", "x3"].error_x.arrayminus == pytest.approx((0.1,))
    (bands,) = (t for t in fig.data if t.type == "bar")
    assert (bands.base, bands.x) == ((0.7, 0.9), (0.6, 0.2))
    assert [(s.x0, s.xref) for s in fig.layout.shapes] == [(12.0, "x"), (1.0, "x2"), (1.4, "x3")]


def test_a_cell_shows_the_board_once(monkeypatch, recorded_board):
    """A second point in a cell leaves of the first output the point alone."""
    outputs, cell = {}, 7

    def display(bundle, raw, display_id, update=False):
        assert update == (display_id in outputs)
        outputs[display_id] = bundle

    monkeypatch.setattr("IPython.display.display", display)
    module = sys.modules[Board.__module__]  # lab.board is the board itself
    monkeypatch.setattr(module, "_running_cell", lambda: cell)
    for name in ("one", "two"):
        recorded_board.add(**POINT | {"technique": name})
    first, second = outputs.values()
    assert [b[BOARD_MIME]["technique"] for b in (first, second)] == ["one", "two"]
    assert [PLOTLY in b for b in (first, second)] == [False, True]
    cell = 8
    recorded_board.add(**POINT | {"technique": "three"})
    assert [PLOTLY in b for b in outputs.values()] == [False, True, True]


ZERO = Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"model": "gpt9"}, {"kind": "felt"}, {"bytes": -1}, {"band": float("nan")}, {"time": ZERO}],
)
def test_the_board_refuses(wrong, tmp_path):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        Board(tmp_path / "none.json").add(**POINT | wrong)


def test_catalogs_are_toml_of_texts():
    rooms = Path(efflab_rooms.__file__).parent.glob("*/zh.toml")
    for path in (text.OWN_TEXTS, *rooms):
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(v, str) and v for v in entries.values()), path.name
