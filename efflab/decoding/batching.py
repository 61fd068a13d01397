"""Requests that arrive, share a model and a cache in pages, and leave: a simulation.

A step gives every running request a token. *Continuous* batching lets a waiting one in as soon as
there is room (Yu et al. 2022, Orca); otherwise a batch ends before the next begins. The cache is
lent in pages, of which a request's last one is partly empty (Kwon et al. 2023, PagedAttention).
Before, each request was lent as much as the longest text needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from efflab.arguments import check_module
from efflab.errors import require, require_positive
from efflab.rules import Count, NonNegative, Positive, Size


@dataclass(frozen=True)
class Request:
    """When it arrives, the tokens of its prompt, and how many it asks for."""

    arrival_seconds: NonNegative
    n_prompt: Size
    n_new: Size


@dataclass(frozen=True)
class Served:
    """What a simulation says: `latencies` in seconds from arrival to the last token, by request;
    `waste` is the mean share of lent slots that hold no token."""

    tokens_per_second: float
    latencies: tuple[float, ...]
    waste: float
    mean_batch: float


def arrivals(
    n: Size, per_second: Positive, mean_prompt: Size, mean_new: Size, seed: Count = 0
) -> list[Request]:
    """`n` requests at random times (a Poisson process) and of random lengths (geometric)."""
    rng = np.random.default_rng(seed)
    times = rng.exponential(1 / per_second, n).cumsum()
    lengths = (rng.geometric(1 / mean, n) for mean in (mean_prompt, mean_new))
    return [Request(float(t), int(p), int(m)) for t, p, m in zip(times, *lengths, strict=True)]


def serve(
    requests: Sequence[Request],
    n_slots: Size,
    page_size: Size,
    step_seconds: Callable[[int], float],
    continuous: bool = True,
) -> Served:
    """Serve all in order of arrival, with a cache of `n_slots` tokens in pages of `page_size`.

    `step_seconds(b)`: seconds of a step with b running requests. A request is let in once there
    are free pages for all of its tokens, so that none is evicted later.
    """
    require(len(requests) > 0, "requests", requests, "at least one")
    pages = [ceil((r.n_prompt + r.n_new) / page_size) for r in requests]
    free, allowed = n_slots // page_size, "{n} or more, for the longest request"
    require(max(pages) <= free, "n_slots", n_slots, allowed, n=max(pages) * page_size)
    waiting = sorted(range(len(requests)), key=lambda i: requests[i].arrival_seconds)
    running, latencies, now, n_steps = dict[int, int](), {}, 0.0, 0
    lent = used = n_tokens = 0
    while waiting or running:
        if not running:
            now = max(now, requests[waiting[0]].arrival_seconds)
        can_enter = continuous or not running
        while can_enter and waiting and requests[waiting[0]].arrival_seconds <= now:
            if pages[waiting[0]] > free:
                break
            free -= pages[waiting[0]]
            running[waiting.pop(0)] = 0
        seconds = step_seconds(len(running))
        require_positive("step_seconds(b)", seconds)
        now += seconds
        n_steps, n_tokens = n_steps + 1, n_tokens + len(running)
        for i in list(running):
            running[i] += 1
            length = requests[i].n_prompt + running[i]
            used, lent = used + length, lent + ceil(length / page_size) * page_size
            if running[i] == requests[i].n_new:
                latencies[i] = now - requests[i].arrival_seconds
                free += pages[i]
                del running[i]
    seconds = now - min(r.arrival_seconds for r in requests)
    by_request = tuple(latencies[i] for i in range(len(requests)))
    return Served(n_tokens / seconds, by_request, 1 - used / lent, n_tokens / n_steps)


check_module(__name__)
