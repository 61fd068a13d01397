"""Explorers: controls, live behaviour, the form that needs no kernel, and what is refused."""

import asyncio
import sys
import time

import pytest
from explorer_examples import cost

from efflab import lab
from efflab.lab import Explorer, Slider, page, picture
from efflab.lab.explore import PICKED, WORKING


def titles(live):
    return live.picture._bundle[page.PLOTLY]["layout"]["title"]["text"]


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


def test_the_picture_s_place_is_as_high_as_its_figure():
    live = Explorer(lambda n=2: lab.blank("rows", height=300 + n), n=Slider(1, 9, 2))
    live.view()
    for n in (9, 1):
        live.set(n=n)
        assert live.picture._output.layout.min_height == f"{300 + n + picture.ROOM}px"


def test_whoever_asks_the_kernel_is_answered():
    live = Explorer(cost)
    live.view()
    _, redraw, answer = live.picture.widget.children
    redraw._handle_custom_msg(1.5, [])  # as picture.js asks at a move
    assert answer.value == "1.5"


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


def slow_explorer(monkeypatch, fn, **controls):
    """An explorer of `fn` that counts as slow, whatever `fn` takes."""
    monkeypatch.setattr(sys.modules["efflab.lab.explore"], "REST_SECONDS", 0.02)
    live = Explorer(fn, **controls)
    live.seconds = 1.0
    live.view()
    return live


def test_a_slow_function_waits_for_the_hand_and_says_so(monkeypatch):
    notes = []

    def slow(n=3):
        notes.append(live._notes["n"].value if calls else "")
        calls.append(n)
        return lab.blank(f"n = {n}")

    calls = []
    live = slow_explorer(monkeypatch, slow, n=(1, 9))
    live.set(n=4)
    assert live.widgets["n"].continuous_update is False
    assert "working ..." in notes[-1]
    assert live._notes["n"].value == ""
    quick = Explorer(cost)
    quick.seconds = 0.001
    quick.view()
    assert quick.widgets["window_size"].continuous_update is True
    quick.seconds = 1.0
    quick._pace()
    assert quick.widgets["window_size"].continuous_update is False


def test_of_five_quick_moves_a_slow_function_computes_the_last(monkeypatch):
    calls, notes = [], []

    def slow(n=3, k=1):
        calls.append((n, k))
        if n == 9:
            raise ValueError("n=9: expected at most 8")
        return lab.blank(f"n = {n}, k = {k}")

    live = slow_explorer(monkeypatch, slow, n=(1, 9), k=(1, 5))

    async def moves(*values):
        calls.clear()
        for value in values:
            live.widgets["n"].value = value
            await asyncio.sleep(0)
        live.widgets["k"].value = values[0]
        notes.append((live._notes["n"].value, live._notes["k"].value))
        await asyncio.sleep(0.1)

    asyncio.run(moves(4, 5, 6, 7, 8))
    assert calls == [(8, 4)]
    assert titles(live) == "n = 8, k = 4"
    assert all("working ..." in note for note in notes[0])
    assert (live._notes["n"].value, live._notes["k"].value) == ("", "")
    asyncio.run(moves(5, 9))
    assert calls == [(9, 5)]
    assert titles(live) == "n = 8, k = 4"  # the last good picture stays
    assert (live._notes["n"].value, live.message) == ("", "n=9: expected at most 8")
    assert "at most 8" in live._notes["k"].value


@pytest.mark.parametrize("keeps", [True, False])
def test_only_where_it_was_before_a_slow_function_that_keeps_its_results_does_not_wait(
    keeps, monkeypatch
):
    def slow(n=3):
        if n not in kept or not keeps:
            clock.append(clock[-1] + 1)
        kept.add(n)
        return lab.blank(f"n = {n}")

    kept, clock = set(), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[-1])  # a busy machine's times vary
    live = slow_explorer(monkeypatch, slow, n=(1, 9))

    async def moves():
        at_once = []
        for n in (5, 3, 5, 3, 7):
            live.widgets["n"].value = n
            at_once.append(titles(live) == f"n = {n}")
            await asyncio.sleep(0.1)
        return at_once

    assert asyncio.run(moves()) == [False, True, keeps, keeps, False]


def test_a_quick_function_too_says_that_it_works_before_it_is_called():
    def sometimes_slow(n=3):
        notes.append(live._notes["n"].value if live else "")
        return lab.blank(f"n = {n}")

    live, notes = None, []
    live = Explorer(sometimes_slow, n=(1, 9))
    live.set(n=4)
    assert WORKING in notes[-1]  # its style shows it only if it stays
    assert live._notes["n"].value == ""


def test_set_draws_at_once_and_once_also_while_a_loop_runs(monkeypatch):
    calls = []

    def slow(n=3, k=1):
        calls.append((n, k))
        return lab.blank(f"n = {n}, k = {k}")

    live = slow_explorer(monkeypatch, slow, n=(1, 9), k=(1, 5))
    calls.clear()

    async def cell():
        live.widgets["n"].value = 7  # waits for the loop
        live.set(n=8, k=2)
        return titles(live)

    assert asyncio.run(cell()) == "n = 8, k = 2"
    assert calls == [(8, 2)]


def test_an_older_result_is_never_drawn_over_a_newer_one():
    drawn = []

    def overtaken(n=3):
        if n == 5:
            live.widgets["n"].value = 6  # a move that comes while this one is computed
        return lab.blank(f"n = {n}")

    live = Explorer(overtaken, n=(1, 9))
    live.view()
    monkey = live.picture.draw
    live.picture.draw = lambda figure: (drawn.append(figure.layout.title.text), monkey(figure))
    live.set(n=5)
    assert drawn == ["n = 6"]
    assert titles(live) == "n = 6"


def test_any_error_of_the_function_is_said_and_the_next_move_works():
    def fragile(n=1):
        return lab.blank(f"n = {n}, {[1, 2, 3][n]}")

    live = Explorer(fragile, n=(0, 9))
    live.set(n=5)
    assert live.message == "IndexError: list index out of range"
    live.set(n=2)
    assert (titles(live), live.message) == ("n = 2, 3", "")


def test_what_is_refused_is_said_in_chinese():
    live = Explorer(cost)
    lab.use_language("zh")
    try:
        live.set(window_size=480)
    finally:
        lab.use_language("en")
    assert live.message == "window_size=480：应为不大于 400 的数"


def test_only_the_first_picture_is_an_output_unless_the_page_has_no_plot_of_its_own():
    live = Explorer(cost)
    live.view()
    output, redraw, _ = live.picture.widget.children
    redraw.ready = True  # as picture.js does
    live.set(window_size=256)

    def shown():
        return output.outputs[0]["data"][page.PLOTLY]["layout"]["title"]["text"]

    assert (shown(), redraw.figure["layout"]["title"]["text"]) == ("w = 128", "w = 256")
    redraw.absent = True  # as picture.js does
    assert shown() == "w = 256"
    live.set(window_size=272)
    assert shown() == "w = 272"


def test_until_the_page_is_ready_to_redraw_each_picture_is_an_output():
    live = Explorer(cost)
    live.set(window_size=256)
    output, redraw, _ = live.picture.widget.children

    def shown():
        return output.outputs[0]["data"][page.PLOTLY]["layout"]["title"]["text"]

    assert shown() == "w = 256"
    redraw.ready = True  # as picture.js does
    live.set(window_size=272)
    assert (shown(), redraw.figure["layout"]["title"]["text"]) == ("w = 256", "w = 272")


@pytest.mark.parametrize(("answers", "is_output"), [(True, False), (False, True)])
def test_a_picture_that_the_page_does_not_answer_becomes_an_output(answers, is_output, monkeypatch):
    monkeypatch.setattr(picture, "ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(picture, "GRACE_SECONDS", 0.01)
    live = Explorer(cost)
    live.view()
    output, redraw, _ = live.picture.widget.children
    redraw.ready = True

    async def moves():
        for n in (256, 272):
            live.set(window_size=n)
            if answers:
                redraw.drawn = redraw.number  # as picture.js does
            await asyncio.sleep(0.1)

    asyncio.run(moves())
    assert redraw.number == 2
    assert redraw.absent == is_output
    title = output.outputs[0]["data"][page.PLOTLY]["layout"]["title"]["text"]
    assert title == ("w = 272" if is_output else "w = 128")


def test_a_picture_that_a_newer_one_overtook_needs_no_answer(monkeypatch):
    monkeypatch.setattr(picture, "ANSWER_SECONDS", 0.02)
    monkeypatch.setattr(picture, "GRACE_SECONDS", 0.01)
    live = Explorer(cost)
    live.view()
    redraw = live.picture.widget.children[1]
    redraw.ready = True

    async def moves():
        live.set(window_size=256)
        live.set(window_size=272)
        redraw.drawn = 2
        await asyncio.sleep(0.1)

    asyncio.run(moves())
    assert not redraw.absent


def test_labels_have_units_in_both_languages():
    assert Explorer(cost).label("window_size") == "value (tokens)"
    lab.use_language("zh")
    try:
        assert Explorer(cost).label("window_size") == "数值 (token)"
    finally:
        lab.use_language("en")


def test_a_value_between_the_steps_becomes_the_nearest():
    live = Explorer(cost)
    live.view()
    live.widgets["window_size"].value = 333
    assert (live.widgets["window_size"].value, titles(live)) == (336, "w = 336")
    live.set(window_size=491)
    assert (live.message, titles(live)) == ("window_size=496: expected at most 400", "w = 336")
