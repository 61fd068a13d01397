"""Every explorer at the ends, the default and off the grid of each control: it answers or says why.

An explorer is a function with `.controls`, in a room of `efflab_rooms`.
"""

import importlib
import math
import numbers
import re
from itertools import pairwise
from pathlib import Path

import plotly.graph_objects as go
import pytest

import efflab_rooms
from efflab.base.formats import LANGUAGES
from efflab.lab.controls import Choice, Slider, Toggle, bind
from efflab.lab.refusals import refusal
from efflab.lab.text import has_chinese, use_language
from efflab.publishing.catalog import sources
from efflab.publishing.source import read_source, translate

MARKS = {"diamond": "diamond", "triangle": "triangle", "hollow square": "square-open"}
MARKS |= {"菱形": "diamond", "三角形": "triangle", "空心方块": "square-open"}
"""A mark's name in a text, and how plotly's name of its symbol begins."""
ROOMS = Path(efflab_rooms.__file__).parent


def explorers():
    """("room.function", function) of each, once, by where it is defined."""
    found = {}
    for path in sorted(ROOMS.glob("*/*.py")):
        module = importlib.import_module(f"efflab_rooms.{path.parent.name}.{path.stem}")
        for key, value in vars(module).items():
            if hasattr(value, "controls") and value.__module__ == module.__name__:
                found[f"{path.parent.name}.{key}"] = value
    return found


EXPLORERS = explorers()


def values_of(control) -> list:
    """What a control is tried at: its ends, one between its steps, or all its options."""
    if isinstance(control, Toggle | Choice):
        return control.values()
    low, high = control.low, control.high
    between = low + 0.37 * (high - low)
    between = round(between) if control.is_whole else between
    return [low, between, high]


def defaults(fn) -> dict:
    return {name: value for name, (_, value) in bind(fn, {}).items()}


def cases():
    for name, fn in EXPLORERS.items():
        yield name, {}
        for control_name, control in fn.controls.items():
            for value in values_of(control):
                yield name, {control_name: value}


def leaves(value):
    """All numbers in nested containers."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value] if isinstance(value, numbers.Number) else []


def test_every_notebook_has_a_room_and_every_room_an_explorer():
    rooms = {path.parent.name for path in ROOMS.glob("*/__init__.py")}
    assert rooms == {path.stem[3:] for path in sources().values()}
    assert {name.split(".")[0] for name in EXPLORERS} == rooms


@pytest.mark.parametrize(("name", "moved"), list(cases()), ids=str)
def test_each_value_gives_a_picture_with_numbers(name, moved):
    fn = EXPLORERS[name]
    figure = fn(**{**defaults(fn), **moved})
    assert isinstance(figure, go.Figure)
    assert figure.data
    for trace in figure.data:
        drawn = [getattr(trace, key, None) for key in ("x", "y", "z", "values", "labels", "cells")]
        assert any(d is not None and len(d) for d in drawn), trace
    numbers_shown = leaves(dict(figure.layout.meta))
    assert numbers_shown
    assert all(math.isfinite(n) for n in numbers_shown), figure.layout.meta


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_first_control_changes_the_numbers(name):
    fn = EXPLORERS[name]
    first, control = next(iter(fn.controls.items()))
    metas = [dict(fn(**{**defaults(fn), first: v}).layout.meta) for v in values_of(control)]
    assert any(meta != metas[0] for meta in metas[1:])


@pytest.mark.parametrize("name", EXPLORERS)
def test_each_slider_starts_at_one_of_its_own_values(name):
    fn = EXPLORERS[name]
    for control, value in bind(fn, {}).values():
        assert value in control.values()
        is_slider = isinstance(control, Slider)
        assert not is_slider or max(len(f"{own}") for own in control.values()) <= 8  # no noise


def named_marks():
    """(explorer, mark) wherever the text before an explorer's cell names a mark."""
    for path in sources().values():
        for language in LANGUAGES:
            for text, cell in pairwise(translate(read_source(path), language).cells):
                for function in re.findall(r"explore\(\w+\.(\w+)[,)]", cell.source):
                    names = (mark for mark in MARKS if mark in text.source)
                    yield from ((f"{path.stem[3:]}.{function}", mark) for mark in names)


@pytest.mark.parametrize(("name", "mark"), list(named_marks()))
def test_a_mark_that_the_text_names_is_drawn(name, mark):
    fn = EXPLORERS[name]
    symbols = [trace.marker.symbol for trace in fn(**defaults(fn)).data if trace.type == "scatter"]
    drawn = [s for s in symbols for s in ([s] if isinstance(s, str) else s or ())]
    assert any(s.startswith(MARKS[mark]) for s in drawn)


@pytest.fixture
def in_chinese():
    use_language("zh")
    yield
    use_language("en")


@pytest.mark.parametrize("name", EXPLORERS)
def test_values_out_of_range_are_refused_in_words_that_have_their_chinese(name, in_chinese):
    fn = EXPLORERS[name]
    for control_name, control in fn.controls.items():
        if isinstance(control, Slider):
            wrong = -1 if control.low >= 0 else control.low * 1000
        elif isinstance(control, Choice):
            wrong = "no such option"
        else:
            continue
        with pytest.raises((ValueError, TypeError)) as caught:
            fn(**{**defaults(fn), control_name: wrong})
        assert str(wrong) in str(caught.value)  # it quotes what it was given
        _, allowed = refusal(caught.value).split("应为", 1)
        assert has_chinese(allowed), allowed  # or its way to say it is missing in lab.refusals
