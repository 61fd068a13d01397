"""Verdicts and the board: what is shown, stored and refused."""

import json
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import efflab_rooms
from efflab import lab
from efflab.base.busy import others
from efflab.base.formats import PLOTLY
from efflab.estimate import Estimate
from efflab.lab import page, text
from efflab.lab.board import MIME as BOARD_MIME
from efflab.lab.board import Board, board_figure
from efflab.lab.figures import panels
from efflab.lab.labels import place_labels
from efflab.lab.verdict import MIME as VERDICT_MIME
from efflab.lab.verdict import Evidence, Outcome

# --- verdicts and board


def test_every_claim_is_complete_in_both_languages():
    claims = lab.load_claims()
    assert len(claims) == 32
    for name, claim in claims.items():
        assert set(claim) - {"short"} == {"section", "notebook", "kind", "claim"}, name
        assert claim["kind"] in lab.KINDS
        assert claim["notebook"].isdigit()
        assert text.has_chinese(claim["claim"]["zh"])
        assert not text.has_chinese(claim["claim"]["en"])


RATIO = Evidence("ratio", "ratio", np.float64(1 / 3), "x", "computed", low=0.3, high=0.4)
VALUE = Evidence("value", "value", 5)
RULE = "it holds if the ratio is below {limit}"


def outcome(holds, **texts):
    return Outcome(holds, [RATIO, VALUE], rule=RULE, values=dict(limit=0.5), **texts)


def test_a_verdict_is_shown_and_stored(shown):
    lab.verdict("sparse-linear", outcome(True, condition="below {limit}"))
    assert shown[0]["text/plain"].splitlines()[2:] == [
        "◐ Holds if: below 0.5",
        "  Rule, fixed beforehand: it holds if the ratio is below 0.5",
        "  ratio: 0.333x (0.3 to 0.4) [computed]",
        "  value: 5 [measured]",
    ]
    record = shown[0][VERDICT_MIME]
    assert record["figures"][0] == dict(
        id="ratio", name="ratio", value=0.333333, unit="x", kind="computed", low=0.3, high=0.4
    )
    assert [f["id"] for f in record["figures"]] == ["ratio", "value"]  # the deciding one first
    assert {k: v for k, v in record.items() if k != "figures"} == {
        "form": 2,
        "claim": "sparse-linear",
        "holds": True,
        "outcome": "holds if",
        "condition": "below 0.5",
        "rule": "it holds if the ratio is below 0.5",
        "reason": "",
    }
    json.dumps(record)


def test_a_card_begins_with_the_claim_and_follows_the_language(shown):
    lab.use_language("zh")
    text.use_texts({RULE: "比值低于 {limit} 则成立", "no source": "没有出处"})
    lab.verdict("ernie-72h", outcome(None, reason="no source"))
    lines = shown[0]["text/plain"].splitlines()
    assert lines[0] == "论断 ernie-72h，原文第 5 节"
    assert "千亿" in lines[1]
    assert lines[2:5] == ["? 未定", "  没有出处", "  事先定下的规则：比值低于 0.5 则成立"]
    assert lines[5] == "  比值: 0.333 倍（0.3 至 0.4） [计算]"
    assert text.missing == set()
    assert shown[0][VERDICT_MIME]["reason"] == "no source"  # stored in English


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "Measured on a busy machine: others used 1.3 cores meanwhile, so times may be off"),
        ("zh", "测量时机器正忙：其他程序占用了 1.3 个核，测得的时间可能不准"),
    ],
)
def test_a_card_says_that_the_machine_was_busy(shown, monkeypatch, language, line):
    def card(*more):
        lab.verdict("sparse-linear", Outcome(True, [RATIO, *more], rule=RULE))
        return shown.pop()

    lab.use_language(language)
    text.use_texts({RULE: "比值低于 {limit}", "ratio": "比值", "value": "值"})
    quiet = card(VALUE)
    others.cores = 1.3
    busy = card(VALUE)
    assert line in busy["text/plain"]
    assert line in busy["text/html"]
    assert line not in quiet["text/plain"] + quiet["text/html"]
    assert busy[VERDICT_MIME] == quiet[VERDICT_MIME]  # a column of today has no place for it
    assert line not in card()["text/plain"]  # computed: no clock was asked
    others.cores = 0.5
    assert card(VALUE) == quiet
    others.cores = 1.3
    monkeypatch.setitem(page._build, "widgets", False)
    assert card(VALUE) == quiet  # a build asks before it begins
    assert not text.missing


@pytest.mark.parametrize(
    ("holds", "texts", "word"),
    [
        (True, {}, "holds"),
        (np.bool_(True), dict(condition="it fits"), "holds if"),
        (np.bool_(False), dict(reason="it does not fit"), "does not hold"),
        (None, dict(reason="too few seeds"), "undecided"),
    ],
)
def test_every_outcome_has_its_words(holds, texts, word):
    found = outcome(holds, **texts)
    assert found.record("int8-size")["outcome"] == found.word == word
    assert found.holds is (None if holds is None else bool(holds))
    assert text.has_chinese(lab.outcome_words(word, "zh"))
    assert lab.outcome_words(word).lower() == word


def test_what_is_stored_gives_the_same_figures_back():
    record = outcome(True).record("int8-size")
    assert (
        Outcome(True, record["figures"], rule=RULE).record("int8-size")["figures"]
        == (record["figures"])
    )


def test_a_wrong_verdict_is_refused():
    with pytest.raises(ValueError, match=r"claim_id='no-such'.*'albert-params'"):
        lab.verdict("no-such", outcome(True))
    with pytest.raises(TypeError, match="outcome=True"):
        lab.verdict("int8-size", True)
    with pytest.raises(ValueError, match=r"kind='felt'.*'simulated'"):
        Evidence("ratio", "ratio", 1.0, kind="felt")
    for wrong in (
        dict(holds=False),  # with no reason
        dict(holds=None),
        dict(holds=False, reason="no", condition="in winter"),
        dict(holds=True, reason="none is asked for"),
    ):
        with pytest.raises(ValueError, match="expected"):
            outcome(wrong.pop("holds"), **wrong)
    with pytest.raises(ValueError, match="ids that differ"):
        Outcome(True, [RATIO, RATIO], rule=RULE)
    with pytest.raises(ValueError, match="at least one number"):
        Outcome(True, [], rule=RULE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(value=float("nan")), "value=nan: expected a finite number"),
        (dict(value=-np.inf), "value=-inf: expected a finite number"),
        (dict(value=10**400), "value=.*: expected a finite number"),
        (dict(value=None), "value=None: expected a number, got NoneType"),
        (dict(value=True), "value=True: expected a number, got bool"),
        (dict(value="1"), "value='1': expected a number, got str"),
        (dict(value=np.array([1.0])), "value=.*: expected a number, got ndarray"),
        (dict(low=0.5), r"value, low=0\.5: expected both ends of the interval or neither"),
        (dict(low=0.5, high=float("nan")), "value, high=nan: expected a finite number"),
        (dict(low="0.5", high=2), "value, low='0.5': expected a number, got str"),
        (dict(low=2, high=0.5), r"value=1\.0: expected a number in its interval, 2 to 0\.5"),
        (dict(low=1.1, high=2), r"value=1\.0: expected a number in its interval, 1\.1 to 2"),
        (dict(low=0.5, high=0.9), r"value=1\.0: expected a number in its interval, 0\.5 to 0\.9"),
        (dict(id="Two words"), "id='Two words': expected small letters"),
        (dict(id=""), "id='': expected small letters"),
        (dict(id=7), "id=7: expected a text, got int"),
        (dict(name=""), "name='': expected a name"),
        (dict(name="{n} tokens"), "values={}: expected the fields of its name: n"),
        (dict(values={"n": 7}), "values={'n': 7}: expected the fields of its name"),
        (dict(name=7), "name=7: expected a text, got int"),
        (dict(unit=None), "unit=None: expected a text, got NoneType"),
        (dict(kind=["computed"]), "kind=.*: expected a text, got list"),
        (dict(kind="felt"), "kind='felt': expected one of"),
    ],
)
def test_evidence_that_is_no_number_or_contradicts_itself_is_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Evidence(**dict(id="ratio", name="ratio", value=1.0) | given)


def test_a_name_is_a_template_and_is_stored_filled_in(shown):
    text.use_texts({RULE: "比值低于 {limit}", "time at {n} tokens": "{n} 个词元时的耗时"})
    item = Evidence("time-64", "time at {n} tokens", 2.0, "x", values={"n": 64})
    lab.use_language("zh")
    lab.verdict("sparse-linear", Outcome(True, [item], rule=RULE))
    assert "64 个词元时的耗时: 2 倍 [实测]" in shown[0]["text/plain"]
    (stored,) = shown[0][VERDICT_MIME]["figures"]
    assert (stored["name"], stored["template"]) == ("time at 64 tokens", "time at {n} tokens")
    assert lab.by_id([stored]) == {"time-64": item}
    with pytest.raises(ValueError, match="name='time at 99 tokens': expected 'time at 64 tokens'"):
        lab.by_id([stored | {"name": "time at 99 tokens"}])


def test_a_strangers_template_reaches_no_attribute():
    stored = dict(id="a", name="7", template="{n.__class__}", value=1, values={"n": 7})
    with pytest.raises(ValueError, match="values"):
        lab.by_id([stored])


NAN = dict(id="ratio", name="ratio", value=float("nan"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(holds="yes"), "holds='yes': expected True, False or None, got str"),
        (dict(holds=1), "holds=1: expected True, False or None, got int"),
        (dict(holds=float("nan")), "holds=nan: expected True, False or None"),
        (dict(rule=None), "rule=None: expected a text"),
        (dict(condition=True), "condition=True: expected a text"),
        (dict(reason=0), "reason=0: expected a text"),
        (dict(evidence="ab"), "evidence='a': expected an Evidence"),
        (dict(evidence=[None]), "evidence=None: expected an Evidence"),
        (dict(evidence=[dict(id="a", name="a")]), "evidence=.*: expected its id, name and value"),
        (dict(evidence=[NAN | dict(colour=2)]), "evidence=.*and no keys but id"),
        (dict(evidence=[NAN]), "value=nan"),
    ],
)
def test_an_outcome_of_other_types_is_refused(given, message):
    fine = dict(holds=True, evidence=[RATIO], rule=RULE)
    assert Outcome(**fine).word == "holds"
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Outcome(**fine | given)


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
        ([good | dict(time=None)], "baseline of stdlib-gpt: time=None: expected a number"),
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


def test_names_lie_on_nothing():
    names = [(1.0 + 0.001 * i, 1.0, f"technique {i}") for i in range(8)]
    fig = panels(["one"])
    place_labels(fig, names, (690, 330))
    boxes = [(a.ax, a.ay) for a in fig.layout.annotations if a.text.startswith("technique")]
    assert len(set(boxes)) == 8
    heights = sorted(y for x, y in boxes if x > 0)
    assert all(b - a >= 7 for a, b in pairwise(heights))


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
