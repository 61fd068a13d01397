"""What the lab shows, through its own functions: values, both languages, and what it refuses."""

import base64
import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from efflab import lab, notebooks
from efflab.errors import require
from efflab.estimate import Estimate
from efflab.lab import check as judge_and_show
from efflab.lab import page, text
from efflab.lab.board import MIME as BOARD_MIME
from efflab.lab.board import Board, board_figure
from efflab.lab.check import judge, same
from efflab.lab.figures import panels
from efflab.lab.labels import place_labels
from efflab.lab.predict import comparison, parse
from efflab.lab.tables import display_width, table_forms
from efflab.lab.verdict import MIME as VERDICT_MIME
from efflab.lab.verdict import Figure, Outcome


@pytest.fixture(autouse=True)
def _english():
    lab.use_language("en")
    text.missing.clear()
    yield
    lab.use_language("en")
    text.missing.clear()
    judge_and_show.strict(False)


@pytest.fixture
def shown(monkeypatch):
    """The bundles that reach the page."""
    bundles = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


# --- text


TEXT_FILES = sorted(Path(lab.__file__).parents[1].rglob("zh.toml"))


@pytest.mark.parametrize("path", TEXT_FILES, ids=lambda path: path.parent.name)
def test_texts_keep_the_placeholders(path):
    def names(entry):
        return sorted(re.findall(r"{(\w+)", entry))

    texts = text.read_texts(path)
    assert {en: zh for en, zh in texts.items() if names(en) != names(zh)} == {}


def test_a_notebooks_texts_stand_before_labs_and_go_with_it(tmp_path):
    lab.use_language("zh")
    (tmp_path / "zh.toml").write_text('"correct" = "答对"\n', encoding="utf-8")
    lab.use_notebook("03_toy", {}, tmp_path / "zh.toml")
    assert (lab.tr("correct"), lab.tr("not quite")) == ("答对", "还差一点")
    lab.use_notebook("04_toy", {}, {"layer": "层"})
    assert (lab.tr("correct"), lab.tr("layer")) == ("正确", "层")


def test_a_notebook_hands_over_its_own_exercises():
    lab.use_notebook("03_toy", {"03-1": lab.Exercise(4)}, {})
    judge_and_show("03-1", 4)
    with pytest.raises(ValueError, match=r"name='03-9'.*'03-1'"):
        judge_and_show("03-9", 4)
    with pytest.raises(ValueError, match="name='toy'"):
        lab.use_notebook("toy", {}, {})
    with pytest.raises(ValueError, match="exercise='04-1'"):
        lab.use_notebook("03_toy", {"04-1": lab.Exercise(4)}, {})


def test_tr_follows_the_language_and_records_what_is_missing():
    assert lab.tr("Hint: {hint}", hint="x") == "Hint: x"
    lab.use_language("zh")
    assert lab.tr("Hint: {hint}", hint="x") == "提示：x"
    assert lab.tr("no such text {n}", n=3) == "no such text 3"
    assert lab.tr("12 %") == "12 %"
    assert lab.tr("已有中文") == "已有中文"
    assert text.missing == {"no such text {n}"}


def test_an_unknown_language_is_refused():
    with pytest.raises(ValueError, match=r"language='fr'.*'en', 'zh'"):
        lab.use_language("fr")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (108_310_272, "108,310,272"), (23.9617, "24"), (1234.5678, "1,235"), (0.25, "0.25"),
        (1.5e-7, "1.5e-07"), (float("nan"), "nan"), (None, "-"), (True, "yes"), ("gpt2", "gpt2"),
        (np.float32(2.5), "2.5"), (np.int64(4096), "4,096"), (-1500.0, "-1,500"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(value, expected):
    assert lab.number(value) == expected


# --- tables and figures


ROWS = [
    dict(quantity="time", measured=1234567, ratio=1.0234, kind="measured"),
    dict(quantity="memory", measured=12.5, ratio=2.0, kind="computed"),
]


def test_a_table_lines_up_in_both_languages():
    html, plain = table_forms(ROWS, {"quantity": "quantity", "measured": "value", "kind": "kind"})
    assert plain.splitlines() == [
        "quantity      value  kind",
        "--------  ---------  --------",
        "time      1,234,567  measured",
        "memory         12.5  computed",
    ]
    assert html.count("<tr>") == 3
    lab.use_language("zh")
    _, plain = table_forms([dict(kind="measured", value=1.5)])
    assert plain.splitlines() == ["来源  数值", "----  ----", "实测   1.5"]
    assert display_width("来源 a") == 6


def test_a_table_escapes_html_and_refuses_what_no_row_has():
    html, _ = table_forms([dict(name="<b>")])
    assert "&lt;b&gt;" in html
    with pytest.raises(ValueError, match="columns='price'"):
        table_forms(ROWS, ["price"])
    with pytest.raises(ValueError, match="kind='guessed'"):
        table_forms([dict(kind="guessed")])
    with pytest.raises(ValueError, match="rows"):
        lab.table([])


def test_a_figure_has_numbers_as_text_and_no_noise(shown):
    fig = lab.line([1, 2, 4], {"a": np.array([1, 1 / 3, np.nan])}, "Cost", meta={"share": 1 / 3})
    lab.show(fig)
    (bundle,) = shown
    assert bundle["text/plain"] == "[Cost]\n  share: 0.333"
    assert bundle[page.PLOTLY]["data"][0]["y"] == [1.0, 0.333333, None]
    assert "image/png" not in bundle
    assert len(str(bundle)) < 3000


def test_arrays_are_stored_with_six_digits_in_four_bytes_each():
    values = np.array([[1 / 3, 2e9 / 3, -1e-7 / 3], [0.0, np.nan, 12345678.9]])
    stored = page.figure_bundle(lab.heatmap(values), png=False)[page.PLOTLY]["data"][0]["z"]
    assert (stored["dtype"], stored["shape"]) == ("f4", "2, 3")
    found = np.frombuffer(base64.b64decode(stored["bdata"]), "<f4")
    expected = [0.333333, 666667000.0, -3.33333e-8, 0.0, np.nan, 12345700.0]
    assert np.array_equal(found, np.float32(expected), equal_nan=True)
    masks = page.figure_bundle(lab.heatmap(np.eye(16, dtype=bool)), png=False)
    assert masks[page.PLOTLY]["data"][0]["z"]["dtype"] == "i1"


def test_seven_styles_differ_in_colour_and_marker_and_then_begin_again():
    styles = [lab.figures.style(i) for i in range(8)]
    assert len({(s["line"]["color"], s["marker"]["symbol"]) for s in styles[:7]}) == 7
    assert styles[7] == styles[0]
    second = lab.figures.style(1, dash=2, width=3, size=9)
    assert second["line"] == dict(color=lab.figures.colour(1), dash="dot", width=3)
    assert second["marker"] == dict(color=lab.figures.colour(1), symbol="diamond", size=9)


def test_panels_and_blank_figures_are_copies():
    first = panels(["a", "b"], "first", column_widths=[0.4, 0.6])
    first.add_scatter(y=[1], row=1, col=2)
    first.layout.annotations[0].text = "changed"
    second = panels(["a", "b"], "second", column_widths=[0.4, 0.6])
    assert (len(second.data), second.layout.annotations[0].text) == (0, "a")
    assert second.add_scatter(y=[1], row=1, col=2).data[0].xaxis == "x2"
    lab.blank("one").add_scatter(y=[1])
    assert len(lab.blank("two").data) == 0


def test_figure_helpers_check_lengths():
    with pytest.raises(ValueError, match=r"series='a'.*3 values"):
        lab.line([1, 2, 3], {"a": [1, 2]})
    with pytest.raises(ValueError, match="series"):
        lab.bars(["a", "b"], [1])
    with pytest.raises(ValueError, match="two dimensions"):
        lab.heatmap(np.ones(3))
    with pytest.raises(ValueError, match="either x or y"):
        lab.mark(lab.blank(), "limit", x=1, y=1)


def test_log_log_axes_and_marks():
    fig = lab.loglog([128, 256], {"a": [1, 1000], "b": [1, 2]})
    assert (fig.layout.xaxis.type, fig.layout.yaxis.type) == ("log", "log")
    assert fig.layout.yaxis.dtick == 1
    assert list(fig.layout.xaxis.ticktext) == ["128", "256"]
    assert fig.layout.showlegend
    assert lab.mark(fig, "limit", y=3).layout.annotations[0].text == "limit"


def test_show_source_is_the_function_itself(shown):
    lab.show_source(require)
    assert shown[0]["text/plain"].startswith("def require(condition: bool")
    assert shown[0]["text/markdown"].startswith("```python\ndef require")


# --- predict


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("10", 10),
        ("1,000 x", 1000),
        ("12%", 12),
        (" 2.5 倍", 2.5),
        ("-3", -3),
        ("1e3", 1000),
        (7, 7),
    ],
)
def test_what_a_reader_may_type(typed, value):
    assert parse(typed) == value


@pytest.mark.parametrize("typed", ["many", "1 2", "", "1.2.3"])
def test_what_is_not_a_number(typed):
    with pytest.raises(ValueError, match="is not a number"):
        parse(typed)


def test_the_reveal_compares_in_both_languages():
    assert comparison(2, 24, "x") == "You said 2x, it is 24x: 12 times your number."
    assert comparison(24, 2, "x") == "You said 24x, it is 2x: your number is 12 times too high."
    assert comparison(23, 24, "x") == "You said 23x, it is 24x: well predicted."
    assert comparison(0, 24, "x") == "You said 0x, it is 24x."
    assert comparison(None, 24, "x").startswith("It is 24x.")
    lab.use_language("zh")
    assert comparison(2, 24, "x") == "你预测 2 倍，实际是 24 倍：是你所估的 12 倍。"
    assert text.missing == set()


def test_a_prediction_is_committed_once_and_then_revealed(shown):
    prediction = lab.predict("How many times slower?", unit="x")
    assert page.WIDGET in shown[0]
    field = prediction.widget.children[1].children[0]
    field.value = "lots"
    assert prediction.guess is None
    assert "not a number" in prediction.widget.children[1].children[1].value
    field.value = "2x"
    assert (prediction.guess, field.disabled) == (2.0, True)
    prediction.commit(24)
    assert prediction.guess == 2.0
    prediction.reveal(24.0)
    assert shown[1]["text/plain"] == "You said 2x, it is 24x: 12 times your number."


def test_a_prediction_needs_no_front_end(shown, monkeypatch):
    monkeypatch.setitem(page._build, "widgets", False)
    lab.predict("How many?").reveal(3)
    assert page.WIDGET not in shown[0]
    assert shown[1]["text/plain"].startswith("It is 3.")
    with pytest.raises(ValueError, match="measured"):
        lab.predict("How many?").reveal(float("nan"))


# --- check


def half_of(answer):
    for n in (2, 10):
        yield f"half({n})", n / 2, answer(n)


EXERCISES = {
    "03-1": lab.Exercise(half_of, hint="Hint: {hint}"),
    "03-2": lab.Exercise(np.arange(6.0)),
}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (..., "not attempted"), (lambda n: None, "not attempted"), (lambda n: n // 2, "correct"),
        (lambda n: 1, "not quite"), (lambda: 1, "not quite"), (3, "not quite"),
    ],
)  # fmt: skip
def test_an_answer_is_judged(answer, status):
    assert judge(EXERCISES["03-1"], answer)[0] == status


def test_the_first_mismatch_and_the_hint_are_shown(shown):
    lab.check("03-1", lambda n: 1, exercises=EXERCISES)
    assert shown[0]["text/plain"].splitlines()[:4] == [
        "✗ Exercise 03-1: not quite", "  half(10)", "  expected: 5", "  yours: 1",
    ]  # fmt: skip
    lab.check("03-1", lambda n: n / 0, exercises=EXERCISES)
    assert "ZeroDivisionError" in shown[1]["text/plain"]
    lab.use_language("zh")
    lab.check("03-1", lambda n: n / 2, exercises=EXERCISES)
    assert shown[2]["text/plain"] == "✓ 练习 03-1：正确"


def test_a_wrong_array_is_drawn(shown):
    lab.check("03-2", np.arange(6) + 1, exercises=EXERCISES)
    assert shown[1][page.PLOTLY]["data"][1]["y"] == [1, 2, 3, 4, 5, 6]


def test_strict_mode_raises_unless_correct(shown):
    judge_and_show.strict(True)
    lab.check("03-2", np.arange(6), exercises=EXERCISES)
    for wrong in (..., np.arange(5)):
        with pytest.raises(AssertionError, match="03-2"):
            lab.check("03-2", wrong, exercises=EXERCISES)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"name='03-9'.*'03-1'"):
        lab.check("03-9", 1, exercises=EXERCISES)


def test_sameness_is_relative_and_minds_shapes():
    import torch

    assert same(1.0, 1.0005)
    assert same(torch.ones(3), [1, 1, 1])
    assert same([True, False], np.array([True, False]))
    assert same("a", "a")
    assert same([1e6, 0.0], [1e6, 1e-3])
    assert not same(1.0, 1.01)
    assert not same([1, 1], [1, 1, 1])
    assert not same("a", "b")
    assert not same(1, "b")
    assert not same([1.0, 0.0], [1.0, 0.1])


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


RATIO = Figure("ratio", np.float64(1 / 3), "x", "computed", low=0.3, high=0.4)
RULE = "it holds if the ratio is below {limit}"


def outcome(holds, **texts):
    return Outcome(holds, [RATIO, Figure("value", 5)], rule=RULE, values=dict(limit=0.5), **texts)


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
        name="ratio", value=0.333333, unit="x", kind="computed", low=0.3, high=0.4
    )
    assert [f["name"] for f in record["figures"]] == ["ratio", "value"]  # the deciding one first
    assert {k: v for k, v in record.items() if k != "figures"} == {
        "claim": "sparse-linear", "holds": True, "outcome": "holds if",
        "condition": "below 0.5", "rule": "it holds if the ratio is below 0.5", "reason": "",
    }  # fmt: skip
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
        Figure("ratio", 1.0, kind="felt")
    with pytest.raises(ValueError, match=r"low=1\.0"):
        Figure("ratio", 1.0, low=1.0)
    for wrong in (
        dict(holds=False),  # with no reason
        dict(holds=None),
        dict(holds=False, reason="no", condition="a rider"),
    ):
        with pytest.raises(ValueError, match="expected"):
            outcome(wrong.pop("holds"), **wrong)
    with pytest.raises(ValueError, match="names that differ"):
        Outcome(True, [RATIO, RATIO], rule=RULE)
    with pytest.raises(ValueError, match="at least one figure"):
        Outcome(True, [], rule=RULE)


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
    path.write_text(json.dumps({"points": [BASELINE, later]}))
    lab.use_notebook("09_quantization", {}, {})
    yield Board(path)
    lab.notebook.current.name = ""


def test_the_board_keeps_recorded_points_and_replaces_its_own(shown, recorded_board):
    recorded_board.add(**POINT)
    recorded_board.add(**POINT | {"quality": Estimate(1.6, 1.5, 1.7)})
    points = recorded_board.points("stdlib-gpt")
    assert [(p["technique"], p["quality"], p["kind"]) for p in points] == [
        ("baseline", 1.4, "recorded"), ("int8", 1.6, "measured"),
    ]  # fmt: skip
    assert recorded_board.points("MiniLM-L6") == []
    wanted = STORED | dict(quality=1.6, quality_low=1.5, quality_high=1.7, kind="measured")
    assert shown[1][BOARD_MIME] == wanted
    assert "0.5 (0.45 to 0.6)" in shown[1]["text/plain"]


def test_points_of_notebooks_not_yet_read_stay_hidden(recorded_board):
    def names():
        return [p["technique"] for p in recorded_board.points("stdlib-gpt")]

    assert names() == ["baseline"]
    lab.notebook.current.name = "11_pruning"
    assert names() == ["baseline", "pruned"]


def test_a_points_symbol_is_its_notebooks_whatever_else_is_shown():
    other = STORED | dict(technique="other", kind="recorded")
    points = [BASELINE | {"kind": "recorded"}, other, STORED | {"kind": "measured"}]

    def symbol(points):
        return [t.marker.symbol for t in board_figure("stdlib-gpt", points).data if t.marker.symbol]

    alone, together = symbol(points[2:]), symbol(points)
    assert alone[0] == together[2]
    assert together[1] == alone[0] + "-open"
    assert together[0] != together[1]


def test_the_board_draws_points_band_front_and_names():
    points = [BASELINE | {"kind": "recorded"}, STORED | {"kind": "measured"}]
    fig = board_figure("stdlib-gpt", points)
    marks = [t for t in fig.data if t.mode == "markers"]
    assert [t.x for t in marks] == [(12.0,), (3.0,), (1.0,), (0.5,)]  # MB, then relative time
    assert marks[-1].error_x.array == pytest.approx((0.1,))
    assert marks[-1].error_y.arrayminus == pytest.approx((0.1,))
    assert [(s.x0, s.x1) for s in fig.layout.shapes] == [(0.9, 1.1)]
    named = [a.text for a in fig.layout.annotations]
    assert named.count("baseline") == named.count("int8") == 2


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
    rooms = Path(notebooks.__file__).parent.glob("*/zh.toml")
    for path in (text.OWN_TEXTS, *rooms):
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
        assert all(isinstance(v, str) and v for v in entries.values()), path.name
