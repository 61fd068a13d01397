"""Controls: their values and first values, shorthands, and what is refused."""

import pytest
from explorer_examples import cost

from efflab import lab
from efflab.lab import Choice, Explorer, Slider, Toggle, explorer
from efflab.lab.controls import bind
from efflab.lab.static import pick


def test_shorthands_and_their_first_values():
    def fn(size=4, kind="b", on=True, rate=0.5):
        return lab.blank()

    bound = bind(fn, dict(size=(1, 9), kind=["a", "b"], on=False, rate=(0.0, 1.0)))
    assert {name: (type(c), v) for name, (c, v) in bound.items()} == {
        "size": (Slider, 4),
        "kind": (Choice, "b"),
        "on": (Toggle, False),
        "rate": (Slider, 0.5),
    }
    overridden = bind(cost, dict(window_size=(16, 64)))["window_size"][0]
    assert (overridden.high, overridden.unit) == (64, "tokens")


def test_slider_values():
    assert list(Slider(1, 4).values()) == [1, 2, 3, 4]
    assert Slider(1, 100, scale="log2").values() == [1, 2, 4, 8, 16, 32, 64]
    assert Slider(0.0, 1.0, step=0.25).values() == [0, 0.25, 0.5, 0.75, 1]
    assert Slider(0.0, 1.0, step=1 / 3).values()[-1] == 1
    assert list(Slider(16, 500, step=16).values())[-1] == 496
    assert pick(range(1, 101), 30, 4) == [1, 30, 67, 100]
    assert pick([1, 2], 1, 7) == [1, 2]
    assert pick(["a", "b", "c", "d"], "b", 3) == ["a", "b", "c", "d"]


def test_values_without_an_order_are_picked_by_their_places():
    options = [None, (1, 2), (3, 4), "a", 8, 16, 2.5]
    for first in options:
        picks = pick(options, first, 4)
        assert first in picks
        assert picks == sorted(set(picks), key=options.index)
    assert pick(options, 8, 4) == [None, (3, 4), 8, 2.5]


ENDS = [(0.4, 0.7, 0.05), (0.1, 0.7, 0.2), (0.0, 0.3, 0.1), (1.1, 2.2, 0.1), (-0.3, 0.3, 0.1)]


@pytest.mark.parametrize(("low", "high", "step"), [*ENDS, (2.0, 20.0, 0.3), (1e-6, 7e-6, 1e-6)])
def test_a_slider_of_fractions_ends_where_it_says_and_has_no_noise(low, high, step):
    slider = Slider(low, high, step=step)
    values = slider.values()
    assert (values[0], values[-1]) == (low, high)
    assert len(values) == round((high - low) / step) + 1
    assert max(len(repr(v)) for v in values) <= 6

    def fn(share):
        assert low <= share <= high
        return lab.blank(f"{share}")

    for i, value in enumerate(values):
        live = Explorer(fn, share=Slider(low, high, low + i * step, step=step))  # as a sum has it
        assert live.figure.layout.title.text == f"{value}"
        live.set(share=high - (len(values) - 1 - i) * step)
        assert (live.figure.layout.title.text, live.message) == (f"{value}", "")


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
        (lambda: Choice([[1], [2]]), "options=.*: expected values that can be keys"),
        (lambda: Toggle("yes"), "value='yes'"),
        (lambda: Explorer(cost, window=(1, 5)), "control='window'"),
        (lambda: Explorer(cost, window_size=5), "window_size=5"),
        (lambda: Explorer(cost, frames=-1), "frames=-1"),
        (lambda: Explorer(cost, most=-1), "most=-1"),
        (lambda: Explorer(lambda n: lab.blank()), "controls"),
        (lambda: Explorer(lambda n, m: lab.blank(), n=(1, 5)), "a control for 'm' too"),
        (lambda: explorer(size=(1, 5))(cost), "control='size'"),
        (lambda: Explorer(cost).set(window_size=9999), "value=9999"),
    ],
)
def test_bad_controls_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
