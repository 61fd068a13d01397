"""Batching: small cases by hand, and what must always hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efflab.decoding.batching import Request, arrivals, serve


def second(batch):
    return 1.0


def test_two_requests_by_hand():
    requests = [Request(0.0, 4, 2), Request(0.5, 2, 3)]
    served = serve(requests, n_slots=16, page_size=4, step_seconds=second)
    # steps end at 1 (first alone), 2 (both), 3, 4 (second alone): 5 tokens in 4 seconds
    assert served.latencies == (2.0, 3.5)
    assert served.tokens_per_second == 5 / 4
    assert served.mean_batch == 5 / 4
    # lengths 5 | 6, 3 | 4 | 5 in pages of 4: 8 | 8, 4 | 4 | 8
    assert served.waste == pytest.approx(1 - (5 + 6 + 3 + 4 + 5) / (8 + 8 + 4 + 4 + 8))
    static = serve(requests, 16, 4, second, continuous=False)
    assert static.latencies == (2.0, 4.5)


def test_a_request_waits_for_pages():
    requests = [Request(0.0, 4, 4), Request(0.0, 4, 4)]
    assert serve(requests, 16, 4, second).latencies == (4.0, 4.0)
    assert serve(requests, 15, 4, second).latencies == (4.0, 8.0)


@given(st.integers(0, 50), st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_request_is_served_and_small_pages_waste_less(seed, continuous):
    requests = arrivals(30, 0.5, 20, 10, seed)
    runs = [serve(requests, 4096, size, second, continuous) for size in (1, 16, 128)]
    for run in runs:
        assert all(t > r.n_new - 1e-6 for t, r in zip(run.latencies, requests, strict=True))
    assert 0 == runs[0].waste < runs[1].waste < runs[2].waste < 1


def test_continuous_batches_are_fuller_and_faster():
    requests = arrivals(200, 2.0, 30, 40, seed=1)
    together, apart = (serve(requests, 2048, 16, second, way) for way in (True, False))
    assert together.tokens_per_second > 1.5 * apart.tokens_per_second
    assert together.mean_batch > apart.mean_batch
    assert sum(together.latencies) < sum(apart.latencies)


def test_arrivals_have_the_rate_and_the_lengths_they_were_asked_for():
    requests = arrivals(20_000, 4.0, 50, 8, seed=2)
    assert requests == arrivals(20_000, 4.0, 50, 8, seed=2) != arrivals(20_000, 4.0, 50, 8, seed=3)
    assert requests[-1].arrival_seconds == pytest.approx(5_000, rel=0.05)
    assert sum(r.n_prompt for r in requests) / 20_000 == pytest.approx(50, rel=0.05)
    assert sum(r.n_new for r in requests) / 20_000 == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: serve([], 8, 4, second), r"requests=\[\]: expected at least one"),
        (
            lambda: serve([Request(0.0, 8, 1)], 8, 4, second),
            "n_slots=8: expected 12 or more, for the longest request",
        ),
        (lambda: serve([Request(0.0, 8, 1)], 8, 0, second), "page_size=0: expected"),
        (lambda: serve([Request(0.0, 8, 1)], 16, 4, lambda b: 0.0), r"step_seconds\(b\)=0.0: exp"),
        (lambda: serve([Request(0.0, 8, 1)], 16, 4, lambda b: -1.0), r"step_seconds\(b\)=-1.0: e"),
        (lambda: Request(-1.0, 1, 1), "arrival_seconds=-1.0: expected"),
        (lambda: arrivals(2, 0.0, 2, 2), "per_second=0.0: expected"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
