"""Text in two languages, tables and figures: what is shown, and what is refused."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from code_files import code_files

import efflab_rooms
from efflab import lab
from efflab.base.toml_files import read_toml
from efflab.errors import require
from efflab.lab import check as judge_and_show
from efflab.lab import colours, page, text
from efflab.lab.figures import panels
from efflab.lab.tables import table_forms

# --- text


HOMES = (Path(lab.__file__).parent, Path(efflab_rooms.__file__).parent)
TEXT_FILES = sorted(path for home in HOMES for path in home.rglob("zh.toml"))


@pytest.mark.parametrize("path", TEXT_FILES, ids=lambda path: path.parent.name)
def test_texts_keep_the_placeholders(path):
    def names(entry):
        return sorted(re.findall(r"{(\w+)", entry))

    texts = read_toml(path)
    assert {en: zh for en, zh in texts.items() if names(en) != names(zh)} == {}


def test_a_notebooks_texts_stand_before_labs_and_go_with_it(tmp_path):
    lab.use_language("zh")
    (tmp_path / "zh.toml").write_text('"correct" = "答对"\n', encoding="utf-8")
    lab.use_notebook("03_toy", {}, tmp_path / "zh.toml")
    assert (lab.tr("correct"), lab.tr("not quite")) == ("答对", "还差一点")
    lab.use_notebook("04_toy", {}, {"layer": "层"})
    assert (lab.tr("correct"), lab.tr("layer")) == ("正确", "层")


def test_texts_that_cannot_be_read_leave_the_language_as_it_was(tmp_path):
    with pytest.raises(OSError, match=r"zh\.toml"), text.speaking("zh", tmp_path / "zh.toml"):
        pass
    assert text.language() == "en"


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
        (108_310_272, "108,310,272"),
        (23.9617, "24"),
        (1234.5678, "1,235"),
        (0.25, "0.25"),
        (1.5e-7, "1.5×10⁻⁷"),
        (float("nan"), "nan"),
        (None, "-"),
        (True, "yes"),
        ("gpt2", "gpt2"),
        (np.float32(2.5), "2.5"),
        (np.int64(4096), "4,096"),
        (-1500.0, "-1,500"),
    ],
)
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


def test_a_table_of_one_kind_says_so_in_its_last_column():
    _, plain = table_forms([{"bits": 8, "MB": 3.25}, {"bits": 4, "MB": 1.7}], kind="measured")
    assert plain.splitlines() == [
        "bits    MB  kind",
        "----  ----  --------",
        "   8  3.25  measured",
        "   4   1.7  measured",
    ]
    with pytest.raises(ValueError, match="kind='felt'"):
        table_forms(ROWS, kind="felt")


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
    label = lab.mark(fig, "limit", y=100).layout.annotations[0]
    assert (label.text, label.y) == ("limit", 2)  # the power of ten
    assert lab.mark(lab.line([1], {"a": [1]}), "limit", y=100).layout.annotations[0].y == 100
    two = panels(["linear", "logarithmic"]).update_xaxes(type="log", col=2)
    for col in (1, 2):
        two.add_scatter(x=[1, 100], y=[0, 1], row=1, col=col)
        lab.mark(two, "here", x=10, row=1, col=col)
    assert [label.x for label in two.layout.annotations if label.text == "here"] == [10, 1]


def test_ticks_whiskers_and_legends_are_made_in_one_place():
    ticks = lab.figures.log_ticks([512, 2048])
    assert ticks == dict(type="log", tickvals=[512, 2048], ticktext=["512", "2,048"])
    ticks = lab.figures.round_ticks(0.9, 21)
    assert ticks == dict(
        type="log", tickvals=[1, 2, 5, 10, 20], ticktext=["1", "2", "5", "10", "20"]
    )
    bars = lab.figures.error_bars([2, 3], [1, 3], [4, 3.5], thickness=1)
    assert (bars["array"], bars["arrayminus"], bars["thickness"]) == ([2, 0.5], [1, 0], 1)
    with pytest.raises(ValueError, match="shorter"):
        lab.figures.error_bars([2, 3], [1], [4, 3.5])
    fig = lab.blank().update_layout(legend=lab.figures.legend("below", title_text="kind"))
    assert (fig.layout.legend.orientation, fig.layout.legend.title.text) == ("h", "kind")
    with pytest.raises(ValueError, match="place='behind': expected one of 'below'"):
        lab.figures.legend("behind")
    assert len(lab.mark(lab.blank(), x=2).layout.annotations) == 0


def test_a_tint_lies_between_white_and_the_colour():
    assert colours.tint("#0072B2", 1) == "#0072b2"
    assert colours.tint("#0072B2", 0) == colours.WHITE
    assert colours.tint("#000000", 0.2) == colours.LIGHT_GREY


PAGES = {"publishing/ledger_html.py", "publishing/site/build.py"}
CODE_OF_A_COLOUR = re.compile(
    r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})\b|\brgba?\(|\"(Viridis|RdBu|Blues)"
)


def test_one_file_knows_the_codes_of_colours():
    """A page's CSS apart, which follows the reader's own light or dark."""
    found = {
        name: len(codes)
        for name, path in code_files().items()
        if (codes := CODE_OF_A_COLOUR.findall(path.read_text(encoding="utf-8")))
    }
    assert found.keys() - PAGES == {"lab/colours.py"}


def test_show_source_is_the_function_itself(shown):
    lab.show_source(require)
    assert shown[0]["text/plain"].startswith("def require(condition: bool")
    assert shown[0]["text/markdown"].startswith("```python\ndef require")


def test_no_figure_has_the_button_that_uploads_it(shown):
    lab.show(lab.blank())
    assert shown[0][page.PLOTLY]["config"]["showSendToCloud"] is False
