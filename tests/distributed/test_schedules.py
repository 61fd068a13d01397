"""The orders of tasks, as the papers draw them."""

import re

import pytest

from efflab.distributed.schedules import SCHEDULES, orders


def written(order):
    """Letters and micro-batches; small letters for chunk 1, a plus where the next runs together."""
    return " ".join(
        (t.kind.lower() if t.chunk else t.kind) + str(t.microbatch) + "+" * t.together
        for t in order
    )


def test_gpipe_is_the_same_on_all_ranks():
    assert [written(order) for order in orders("gpipe", 2, 3)] == ["F0 F1 F2 B0 B1 B2"] * 2


def test_1f1b_runs_ahead_by_the_ranks_that_follow():
    first, *_, last = orders("1f1b", 4, 5)
    assert written(first) == "F0 F1 F2 F3 B0 F4 B1 B2 B3 B4"
    assert written(last) == "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4"


def test_interleaved_takes_as_many_micro_batches_as_ranks_through_a_chunk():
    first, last = orders("interleaved", 2, 4, 2)
    assert written(first) == "F0 F1 f0 f1 F2 b0 F3 b1 f2 B0 f3 B1 b2 b3 B2 B3"
    assert written(last) == "F0 F1 f0 b0 f1 b1 F2 B0 F3 B1 f2 b2 f3 b3 B2 B3"


def test_interleaved_with_one_chunk_is_1f1b_with_twice_the_head_start():
    assert written(orders("interleaved", 3, 6, 1)[0]) == "F0 F1 F2 F3 F4 B0 F5 B1 B2 B3 B4 B5"
    assert orders("interleaved", 3, 6, 1)[2] == orders("1f1b", 3, 6)[2]


def test_zero_bubble_keeps_weights_for_the_end():
    first, _, last = orders("zero-bubble", 3, 4)
    assert written(first) == "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3"
    assert written(last) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3"


def test_dualpipe_has_two_directions_that_mirror_each_other():
    outer, inner, inner_2, outer_2 = orders("dualpipe", 4, 8)
    assert written(outer) == "F0 F1 F2 f4 i4 w4 f5 F3+ b5 f6+ B0 b6 f7+ B1 b7 I2 W2 I3 W3"
    assert written(inner) == "F0 f4 F1 f5 F2 b4 f6+ B0 F3+ b5 f7+ B1 b6 B2 i7 I3 w7 W3"
    for order, mirrored in ((outer, outer_2), (inner, inner_2)):
        swapped = [t._replace(chunk=1 - t.chunk, microbatch=(t.microbatch + 4) % 8) for t in order]
        assert swapped == mirrored


@pytest.mark.parametrize(
    ("schedule", "whole", "fewer"), [("interleaved", 8, 5), ("dualpipe", 8, 6), ("dualpipe", 8, 2)]
)
def test_too_few_micro_batches_leave_gaps_in_the_order_of_more(schedule, whole, fewer):
    def places(n):
        """Of each rank, without the kind of backward, which dualpipe chooses by the count."""
        half = n // 2
        number = (lambda m: (m >= half, m % half)) if schedule == "dualpipe" else (lambda m: (0, m))
        return [
            [(t.kind, number(t.microbatch), t.chunk) for t in order]
            for order in orders(schedule, 4, n)
        ]

    kept = fewer // 2 if schedule == "dualpipe" else fewer
    for few, many in zip(places(fewer), places(whole), strict=True):
        assert few == [task for task in many if task[1][1] < kept]
        assert len(few) < len(many)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("pipedream", 2, 2), "schedule='pipedream': expected one of 'gpipe', '1f1b'"),
        (("gpipe", 0, 2), "n_stages=0"),
        (("gpipe", 2, 0), "n_microbatches=0"),
        (("interleaved", 2, 2, 0), "n_chunks=0"),
        (("dualpipe", 3, 4), "n_stages=3: expected an even number"),
        (("dualpipe", 2, 3), "n_microbatches=3: expected an even number"),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        orders(*arguments)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_number_that_is_not_whole_is_refused(schedule):
    with pytest.raises(TypeError, match="n_microbatches"):
        orders(schedule, 2, 2.0)
