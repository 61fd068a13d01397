"""The timeline of a pipeline, simulated or measured: its length, bubble and memory."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import fsum
from typing import NamedTuple

from efflab.arguments import check_module
from efflab.distributed.schedules import Orders
from efflab.errors import require
from efflab.rules import Size

HELD = {"F": 1, "B": -1, "I": 0, "W": -1}
"""Change in the number of micro-batches held: W, the weights' gradient, frees the activations."""


class Event(NamedTuple):
    """A task on a rank and its times in seconds."""

    rank: int
    kind: str
    microbatch: int
    chunk: int
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Times of each rank's tasks, in seconds and in the order of `orders`.

    `chunks_per_stage`: how many chunks share the layers, and so the activations, of one stage.
    """

    orders: Orders
    starts: list[list[float]]
    ends: list[list[float]]
    chunks_per_stage: Size = 1

    def __post_init__(self):
        n_tasks = list(map(len, self.orders))
        fewest = min(n_tasks, default=0)
        require(fewest > 0, "orders", self.orders, "one task of each rank at least")
        for name, times in dict(starts=self.starts, ends=self.ends).items():
            fits = list(map(len, times)) == n_tasks
            require(fits, name, times, "a time for each rank's task in orders")

    @cached_property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return max(map(max, self.ends)) - min(map(min, self.starts))

    @cached_property
    def bubble_fraction(self) -> float:
        """Idle share (0..1) of all ranks' time, as in the GPipe paper (section 2.3).

        Megatron-LM divides the idle time by the busy time instead.
        """
        busy = fsum(map(fsum, self.ends)) - fsum(map(fsum, self.starts))
        return 1 - busy / (len(self.orders) * self.makespan)

    @cached_property
    def peak_activations(self) -> list[float]:
        """For each rank, the most micro-batches held at once, in units of one stage's activations.

        A micro-batch counts from its forward until its weights' gradient is done.
        """
        changes = ((HELD[task.kind] for task in order) for order in self.orders)
        return [max(accumulate(change)) / self.chunks_per_stage for change in changes]

    @cached_property
    def events(self) -> list[Event]:
        """All tasks with their times, rank by rank."""
        return [
            Event(rank, *task[:3], start, end)
            for rank, order in enumerate(self.orders)
            for task, start, end in zip(order, self.starts[rank], self.ends[rank], strict=True)
        ]


check_module(__name__)
