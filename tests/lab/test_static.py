"""Explorers as a build stores them: the slider, the menu, and what they cost."""

import numpy as np
import pytest
from explorer_examples import cost

from efflab import lab
from efflab.lab import Choice, Explorer, page, static


@pytest.fixture
def stored(monkeypatch):
    """The plotly JSON of an explorer as a build stores it."""
    monkeypatch.setitem(page._build, "widgets", False)
    return lambda fn, **options: Explorer(fn, **options).bundle()[page.PLOTLY]


def test_live_there_is_a_widget_and_one_picture(monkeypatch):
    calls = []

    def fn(n=3, k=1):
        calls.append((n, k))
        return lab.blank(f"n = {n}")

    bundle = Explorer(fn, n=(1, 9), k=(1, 5)).bundle()
    assert set(bundle) == {page.PLOTLY, page.WIDGET, "text/plain"}
    assert "frames" not in bundle[page.PLOTLY]
    assert set(calls) <= {(3, 1), (1, 1), (9, 1)}  # at most the neighbours, to time them


def test_the_stored_form_has_a_slider_of_its_own(stored):
    spec = stored(cost, frames=5, most=5)
    (slider,) = spec["layout"]["sliders"]
    labels = [step["label"] for step in slider["steps"]]
    assert labels == ["16", "128", "272", "384"]  # 512 is refused by the function
    assert [frame["name"] for frame in spec["frames"]] == [f"0/{label}" for label in labels]
    assert [step["args"][0] for step in slider["steps"]] == [[f"0/{label}"] for label in labels]
    assert slider["active"] == 1
    full, window = spec["frames"][2]["data"]
    assert full == {"type": "scatter"}  # only what moves is stored
    assert window == {"type": "scatter", "y": [34816, 69632, 139264]}
    assert spec["frames"][2]["layout"] == {"title": {"text": "w = 272"}}
    assert len(str(spec)) < 6000


def test_a_menu_moves_the_other_controls_and_a_note_names_those_it_does_not(stored):
    def fn(n=2, kind="b", size=16, deep=False):
        return lab.blank(f"{n} {kind} {size} {deep}").add_scatter(x=[n], y=[size])

    controls = dict(n=(1, 3), kind=["a", "b"], size=(1, 64), deep=False)
    spec = stored(fn, most=24, **controls)
    (menu,) = spec["layout"]["updatemenus"]
    labels = [button["label"] for button in menu["buttons"]]
    assert len(labels) == 2 * 4  # two kinds, four of 64 sizes; 2 x 24 pictures would be too many
    assert labels[menu["active"]] == "kind: b · size: 16"
    note = spec["layout"]["annotations"][-1]["text"]
    assert note == "These need a running notebook: deep"
    frames = {frame["name"]: frame for frame in spec["frames"]}
    assert len(frames) == 3 * 8 + 8
    for button, label in zip(menu["buttons"], labels, strict=True):
        (entry,) = button["args"][0]
        (slider,) = frames[entry]["layout"]["sliders"]
        assert (slider["active"], slider["currentvalue"]["prefix"]) == (1, "n: ")
        kind, size = (part.split(": ")[1] for part in label.split(" · "))
        assert frames[entry]["layout"]["title"]["text"] == f"2 {kind} {size} False"
        for step, n in zip(slider["steps"], (1, 2, 3), strict=True):
            (target,) = step["args"][0]
            assert frames[target]["layout"]["title"]["text"] == f"{n} {kind} {size} False"
            assert "sliders" not in frames[target]["layout"]


def test_a_control_that_measures_here_is_not_in_the_menu(stored):
    calls = []

    def fn(n=2, device="A100"):
        calls.append(device)
        return lab.blank(f"{n} {device}").add_scatter(y=[n])

    device = Choice(("A100", "this computer"), stored=False)
    spec = stored(fn, n=(1, 3), device=device)
    assert "updatemenus" not in spec["layout"]
    assert spec["layout"]["annotations"][-1]["text"] == "These need a running notebook: device"
    assert set(calls) == {"A100"}


def test_a_grid_keeps_within_its_bytes_and_leaves_out_what_is_refused(stored):
    def large(n=2, kind="a"):
        return lab.blank(f"{n} {kind}").add_scatter(y=np.arange(9000.0) * n)

    assert "updatemenus" not in stored(large, n=(1, 3), kind=["a", "b", "c", "d"])["layout"]

    def picky(n=2, kind="a"):
        if kind == "c" or (kind, n) == ("b", 2):
            raise ValueError("no")
        return lab.blank(f"{n} {kind}").add_scatter(y=[n])

    spec = stored(picky, n=(1, 3), kind=["a", "b", "c"])
    assert [b["label"] for b in spec["layout"]["updatemenus"][0]["buttons"]] == [
        "kind: a",
        "kind: b",
    ]
    assert [frame["name"] for frame in spec["frames"]] == [
        "0/1",
        "0/2",
        "0/3",
        "0",
        "1/1",
        "1/3",
        "1",
    ]


def test_frames_with_other_numbers_of_traces_hide_the_rest(stored):
    def layers(n=2):
        return lab.line([1, 2], {f"layer {i}": [i, i] for i in range(n)}, "layers")

    spec = stored(layers, n=(1, 3))
    assert [[t["visible"] for t in f["data"][1:]] for f in spec["frames"]] == [
        [False, False],
        [True, False],
        [True, True],
    ]


def test_frames_of_another_height_make_room_too(stored):
    def tall(n=1):
        return lab.blank(height=300 * n).add_scatter(y=[n])

    spec = stored(tall, n=(1, 3))
    assert [f["layout"]["height"] for f in spec["frames"]] == [390, 690, 990]
    assert spec["layout"]["height"] == 390


def test_no_frames_no_slider_and_no_widget_in_a_build(monkeypatch):
    monkeypatch.setitem(page._build, "widgets", False)
    bundle = Explorer(cost, frames=0).bundle()
    assert "sliders" not in bundle[page.PLOTLY]["layout"]
    assert set(bundle) == {page.PLOTLY, "text/plain"}
    note = "The controls move only in a running notebook; drawn: value (tokens): 128 · causal: no"
    assert bundle["text/plain"] == f"[w = 128]\n  window: 128\n  {note}"


def test_the_picture_of_an_explorer_has_no_slider_but_says_what_is_drawn(monkeypatch):
    drawn = []
    monkeypatch.setitem(page._build, "widgets", False)
    monkeypatch.setitem(page._build, "png", True)
    monkeypatch.setattr(page, "figure_png", lambda fig: drawn.append(fig) or b"")
    explorer = Explorer(cost, frames=5)
    bundle = explorer.bundle()
    (picture,) = drawn
    assert (len(picture.layout.sliders), len(bundle[page.PLOTLY]["layout"]["sliders"])) == (0, 1)
    (note,) = picture.layout.annotations
    assert note.text.replace("<br>", " · ") == explorer.note()
    assert picture.layout.height > explorer.figure.layout.height
    assert explorer.figure.layout.annotations == ()


def test_a_long_note_is_broken_between_controls():
    note = " · ".join(f"control {i} (tokens): {i}" for i in range(12))
    picture = static.still(lab.blank("", legend=dict(orientation="h", y=-0.2)), note)
    lines = picture.layout.annotations[0].text.split("<br>")
    assert " · ".join(lines) == note
    assert len(lines) == 6
    assert max(map(len, lines)) <= static.NOTE_COLUMNS
    assert picture.layout.margin.b > lab.blank("").layout.template.layout.margin.b + 6 * 18


def test_live_a_hint_hides_where_the_controls_are(shown):
    lab.explore(cost)
    bundle, hint = shown
    assert page.WIDGET in bundle
    assert "Run this cell again" in hint["text/html"]
    assert "drawn: value (tokens): 128" in hint["text/html"]
    name = hint["text/html"].split('"')[1]
    explorer = Explorer(cost)
    own = f"efflab-{explorer.view().children[-2].model_id}"
    assert f".{own} {{ display: none; }}" in explorer.view().children[-1].value
    assert f'class="{own}"' in explorer.hint()
    assert name != own


def test_stored_there_is_no_hint_but_the_note(shown, monkeypatch):
    monkeypatch.setitem(page._build, "widgets", False)
    lab.use_language("zh")
    lab.explore(cost)
    (bundle,) = shown
    assert "只有在运行的笔记本里才能拨动控件；图中取值：数值 (token): 128" in bundle["text/plain"]
