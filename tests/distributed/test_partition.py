"""The best split of layers into stages, against trying all of them."""

import random
import re
import time
from itertools import combinations, pairwise

import pytest

from efflab.distributed.partition import best_split, stage_seconds
from efflab.distributed.pipeline import simulate


def every_split(n_layer, n_stages):
    for cuts in combinations(range(1, n_layer), n_stages - 1):
        yield [end - start for start, end in pairwise((0, *cuts, n_layer))]


@pytest.mark.parametrize("seed", range(40))
def test_no_other_split_has_a_faster_slowest_stage(seed):
    rng = random.Random(seed)
    n_layer = rng.randint(1, 9)
    n_stages = rng.randint(1, n_layer)
    times = [rng.choice([rng.randint(0, 9), rng.random()]) for _ in range(n_layer)]
    best = min(max(stage_seconds(times, split)) for split in every_split(n_layer, n_stages))
    found = best_split(times, n_stages)
    assert len(found) == n_stages
    assert max(stage_seconds(times, found)) == pytest.approx(best, abs=1e-12)


def test_layers_of_no_time_still_leave_no_stage_empty():
    assert best_split([0, 0, 5], 3) == [1, 1, 1]
    assert sorted(best_split([0, 0, 0, 0], 2)) in ([1, 3], [2, 2])


def test_a_deep_model_costs_little_more_than_adding_its_layers_up():
    """200 layers in 64 stages are 64 tables of 201 x 201; a search of all splits would not end."""
    times = [random.Random(0).random() for _ in range(200)]
    start = time.process_time()
    found = best_split(times, 64)
    took = time.process_time() - start
    start = time.process_time()
    sum(i * i for i in range(4_000_000))
    assert took < time.process_time() - start
    assert (len(found), sum(found)) == (64, 200)


def test_a_better_split_makes_a_faster_step():
    times = [1.0] * 6 + [4.0, 4.0]
    split = best_split(times, 4)

    def makespan(split):
        forward = stage_seconds(times, split)
        return simulate(forward, [2 * f for f in forward], 16).makespan

    assert max(stage_seconds(times, split)) == 4.0
    assert makespan(split) < 0.6 * makespan([2, 2, 2, 2])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([1, 2], 3), "n_stages=3: expected at most the 2 layers"),
        (([1, 2], 0), "n_stages=0"),
        (([1, -2], 1), "layer_seconds[1]=-2"),
        (([1, float("nan")], 1), "layer_seconds[1]=nan"),
        (([1, float("inf")], 1), "layer_seconds[1]=inf"),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        best_split(*arguments)


@pytest.mark.parametrize("split", [[1, 1], [2, 2], [3, 0], []])
def test_a_split_that_does_not_fit_is_refused(split):
    with pytest.raises(ValueError, match=r"split=.* add up to the 3 layers"):
        stage_seconds([1, 1, 1], split)
