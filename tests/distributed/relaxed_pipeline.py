"""A second simulator of pipelines, slow and plain: starts are raised until all hold."""

from dataclasses import dataclass


@dataclass
class Relaxed:
    """What `pipeline.run` takes, and the starts that follow from it."""

    orders: list
    forward: list
    backward: list
    n_chunks: int = 1
    two_way: bool = False
    transfer: float = 0.0
    recompute: bool = False

    def __post_init__(self):
        self.n_ranks = len(self.orders)
        self.n_parts = self.n_ranks * (1 if self.two_way else self.n_chunks)
        self.starts = {
            (rank, i): 0.0 for rank, order in enumerate(self.orders) for i in range(len(order))
        }
        self.makers = {self.made(*key): key for key in self.starts}

    def part(self, rank, chunk):
        """Number of the part in its pipeline."""
        if self.two_way:
            return self.n_ranks - 1 - rank if chunk else rank
        return chunk * self.n_ranks + rank

    def made(self, rank, i):
        """A name for what a task makes: an activation, a gradient, or what nobody needs."""
        task = self.orders[rank][i]
        kind = {"F": "F", "B": "B", "I": "B", "W": "W"}[task.kind]
        return kind, self.part(rank, task.chunk), task.microbatch

    def needed(self, rank, i):
        """Which task makes what this one needs from elsewhere, if any."""
        kind, part, microbatch = self.made(rank, i)
        if kind == "F":
            return self.makers.get(("F", part - 1, microbatch))
        if kind == "B" and part == self.n_parts - 1:
            return self.makers["F", part, microbatch]
        return self.makers.get((kind, part + 1, microbatch)) if kind == "B" else None

    def seconds(self, rank, i):
        task = self.orders[rank][i]
        stage = self.part(rank, task.chunk) % self.n_ranks
        share = 1 if self.two_way else self.n_chunks
        f, b = self.forward[stage] / share, self.backward[stage] / share
        again = f if self.recompute else 0
        return {"F": f, "B": b + again, "I": b / 2 + again, "W": b / 2}[task.kind]

    def bound(self, rank, i):
        """The earliest start that the others' present starts allow."""
        at = self.starts[rank, i - 1] + self.seconds(rank, i - 1) if i else 0.0
        joined = [i, i + 1] if self.orders[rank][i].together else [i]
        for source in filter(None, (self.needed(rank, j) for j in joined)):
            at = max(at, self.left(*source) + self.transfer * (source[0] != rank))
        return at

    def left(self, rank, i):
        """When what a task makes leaves it: at its end, or at its partner's."""
        end = self.starts[rank, i] + self.seconds(rank, i)
        return end + self.seconds(rank, i + 1) if self.orders[rank][i].together else end

    def solve(self):
        """Starts of each rank's tasks."""
        before = None
        while before != self.starts:
            before = dict(self.starts)
            for key in self.starts:
                self.starts[key] = self.bound(*key)
        return [
            [self.starts[rank, i] for i in range(len(order))]
            for rank, order in enumerate(self.orders)
        ]
