"""Explorers: controls, live behaviour, the form that needs no kernel, and what is refused."""

import time

import numpy as np
import pytest

from efflab import lab
from efflab.lab import Choice, Explorer, Slider, Toggle, explorer, page
from efflab.lab.controls import bind
from efflab.lab.explore import PICKED
from efflab.lab.static import pick


@explorer(
    window_size=Slider(16, 512, 128, step=16, unit="tokens", label="value"),
    causal=Toggle(False, label="causal"),
)
def cost(window_size, causal=False):
    if window_size > 400:
        raise ValueError(f"window_size={window_size}: expected at most 400")
    x = np.array([128, 256, 512])
    series = {"full": x * x, "window": x * window_size}
    if causal:
        series["half"] = x * window_size / 2
    return lab.line(x, series, f"w = {window_size}", meta={"window": window_size})


def titles(live):
    (output,) = live._output.outputs
    return output["data"][page.PLOTLY]["layout"]["title"]["text"]


def test_the_picture_follows_and_survives_bad_values():
    live = Explorer(cost)
    live.set(window_size=256)
    assert titles(live) == "w = 256"
    live.set(window_size=480)
    assert live.message == "window_size=480: expected at most 400"
    assert "expected at most 400" in live._notes["window_size"].value
    assert 'role="alert"' in live._notes["window_size"].value
    assert titles(live) == "w = 256"
    live.set(window_size=160, causal=True)
    assert (titles(live), live.message, live._notes["window_size"].value) == ("w = 160", "", "")
    assert len(live.figure.data) == 3


def test_the_readout_of_a_slider_over_listed_values_takes_no_typing():
    doubling = Explorer(cost, window_size=Slider(16, 256, 128, scale="log2"))
    assert "pointer-events: none" in doubling.view().children[-1].value
    assert PICKED in doubling.widgets["window_size"]._dom_classes
    even = Explorer(cost)
    even.view()
    assert PICKED not in even.widgets["window_size"]._dom_classes  # its own readout checks


def test_one_move_of_a_closed_form_takes_under_100_ms():
    live = Explorer(cost)
    live.set(window_size=144)
    seconds = []
    for value in range(160, 400, 16):
        start = time.process_time()
        live.set(window_size=value)
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.1


def test_a_slow_function_waits_for_the_hand_and_says_so():
    seen = []

    def slow(n=3):
        time.sleep(0.06)
        if seen:
            seen.append(seen[0]._notes["n"].value)
        return lab.blank(f"n = {n}")

    live = Explorer(slow, n=(1, 9))
    seen.append(live)
    live.set(n=4)
    assert live.widgets["n"].continuous_update is False
    assert "working ..." in seen[1]
    assert live._notes["n"].value == ""
    quick = Explorer(cost)
    quick.seconds = 0.001
    quick.view()
    assert quick.widgets["window_size"].continuous_update is True


def test_labels_have_units_in_both_languages():
    assert Explorer(cost).label("window_size") == "value (tokens)"
    lab.use_language("zh")
    try:
        assert Explorer(cost).label("window_size") == "数值 (个 token)"
    finally:
        lab.use_language("en")


def test_the_stored_form_has_a_slider_of_its_own():
    spec = Explorer(cost, frames=5).bundle()[page.PLOTLY]
    labels = [step["label"] for step in spec["layout"]["sliders"][0]["steps"]]
    assert labels == ["16", "128", "272", "384"]  # 512 is refused by the function
    assert [frame["name"] for frame in spec["frames"]] == labels
    assert spec["layout"]["sliders"][0]["active"] == 1
    full, window = spec["frames"][2]["data"]
    assert full == {"type": "scatter"}  # only what moves is stored
    assert window == {"type": "scatter", "y": [34816, 69632, 139264]}
    assert spec["frames"][2]["layout"] == {"title": {"text": "w = 272"}}
    assert len(str(spec)) < 6000


def test_frames_with_other_numbers_of_traces_hide_the_rest():
    def layers(n=2):
        return lab.line([1, 2], {f"layer {i}": [i, i] for i in range(n)}, "layers")

    spec = Explorer(layers, n=(1, 3)).bundle()[page.PLOTLY]
    assert [[t["visible"] for t in f["data"][1:]] for f in spec["frames"]] == [
        [False, False], [True, False], [True, True],
    ]  # fmt: skip


def test_no_frames_no_slider_and_no_widget_in_a_build(monkeypatch):
    monkeypatch.setitem(page._build, "widgets", False)
    bundle = Explorer(cost, frames=0).bundle()
    assert "sliders" not in bundle[page.PLOTLY]["layout"]
    assert set(bundle) == {page.PLOTLY, "text/plain"}
    assert bundle["text/plain"] == "[w = 128]\n  window: 128"


def test_shorthands_and_their_first_values():
    def fn(size=4, kind="b", on=True, rate=0.5):
        return lab.blank()

    bound = bind(fn, dict(size=(1, 9), kind=["a", "b"], on=False, rate=(0.0, 1.0)))
    assert {name: (type(c), v) for name, (c, v) in bound.items()} == {
        "size": (Slider, 4), "kind": (Choice, "b"), "on": (Toggle, False), "rate": (Slider, 0.5),
    }  # fmt: skip
    overridden = bind(cost, dict(window_size=(16, 64)))["window_size"][0]
    assert (overridden.high, overridden.unit) == (64, "tokens")


def test_slider_values():
    assert list(Slider(1, 4).values()) == [1, 2, 3, 4]
    assert Slider(1, 100, scale="log2").values() == [1, 2, 4, 8, 16, 32, 64]
    assert Slider(0.0, 1.0, step=0.25).values() == [0, 0.25, 0.5, 0.75, 1]
    assert pick(range(1, 101), 30, 4) == [1, 30, 67, 100]
    assert pick([1, 2], 1, 7) == [1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Slider(5, 5), "low=5"),
        (lambda: Slider(1, 5, 9), "value=9"),
        (lambda: Slider(1, "5"), "high='5'"),
        (lambda: Slider(1, 8, 3, scale="log2"), "value=3"),
        (lambda: Slider(0, 8, scale="log2"), "low=0"),
        (lambda: Slider(1, 8, scale="log10"), "scale='log10'"),
        (lambda: Slider(1, 8, step=0), "step=0"),
        (lambda: Choice([]), "options"),
        (lambda: Choice(["a"], "b"), "value='b'"),
        (lambda: Toggle("yes"), "value='yes'"),
        (lambda: Explorer(cost, window=(1, 5)), "control='window'"),
        (lambda: Explorer(cost, window_size=5), "window_size=5"),
        (lambda: Explorer(cost, frames=-1), "frames=-1"),
        (lambda: Explorer(lambda n: lab.blank()), "controls"),
        (lambda: Explorer(lambda n, m: lab.blank(), n=(1, 5)), "a control for 'm' too"),
        (lambda: explorer(size=(1, 5))(cost), "control='size'"),
        (lambda: Explorer(cost).set(window_size=9999), "value=9999"),
    ],
)
def test_bad_controls_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
