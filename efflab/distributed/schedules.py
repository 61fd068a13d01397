"""Pipeline schedules: the order in which each rank computes, as plain lists of tasks.

- "gpipe": all forwards, then all backwards (Huang et al. 2019, arXiv:1811.06965, figure 2c; there
  the last micro-batch goes backward first, here the first one as in PyTorch: the same times).
- "1f1b": a backward as soon as one can run, so that fewer micro-batches are held (Narayanan et al.
  2021, arXiv:2104.04473, figure 4, top).
- "interleaved": 1F1B where each rank has several thin stages instead of one (figure 4, bottom).
- "zero-bubble": 1F1B with the backward pass split, the weights' half filling gaps (ZB-H1 of Qi et
  al. 2023, arXiv:2401.10241, figure 3; elsewhere called ZB1P).
- "dualpipe": micro-batches enter at both ends, so each rank holds two stages (DeepSeek-AI 2024,
  arXiv:2412.19437, figure 5).
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from itertools import count
from math import isqrt
from typing import NamedTuple

from efflab.arguments import check_module
from efflab.errors import require, require_one_of
from efflab.rules import Size

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipe")
KINDS = {
    "F": "the forward pass",
    "B": "the whole backward pass",
    "I": "its first half, the input's gradient, which the stage before waits for",
    "W": "its second half, the weights' gradient, which nobody waits for",
}
"""PyTorch's letters; Qi et al. write B for I."""


class Task(NamedTuple):
    """A rank's work for one micro-batch: `kind` is one of `KINDS`, `chunk` one of its stages.

    A rank that holds one stage has only chunk 0. A task that runs `together` with the next one
    starts when both can start, and both outputs are passed on when both have ended.
    """

    kind: str
    microbatch: int
    chunk: int = 0
    together: bool = False

    def __str__(self) -> str:
        return f"{self.kind} of micro-batch {self.microbatch}, chunk {self.chunk}"


MOST_PASSES = 2**17
"""Most micro-batches x ranks x chunks: more than a training needs, simulated in a second."""
Orders = list[list[Task]]
"""For each rank its tasks, in order."""
Step = tuple[str, int, bool]
"""(kind, chunk, together) of a task whose micro-batch is not yet numbered."""


def orders(schedule: str, n_stages: Size, n_microbatches: Size, n_chunks: Size = 2) -> Orders:
    """Each rank's order in one of the `SCHEDULES`; `n_chunks` is for "interleaved" only.

    "dualpipe" needs even numbers of stages and micro-batches; chunk 0 is stage `rank` and takes the
    first half of the micro-batches, chunk 1 is stage n_stages - 1 - rank and takes the second.
    Schedules that need more micro-batches (interleaved: a multiple of `n_stages`; dualpipe: at
    least 2 `n_stages`) are laid out for more, and the surplus is left out.

    >>> [" ".join(t.kind + str(t.microbatch) for t in order) for order in orders("1f1b", 2, 3)]
    ['F0 F1 B0 F2 B1 B2', 'F0 B0 F1 B1 F2 B2']
    """
    require_one_of("schedule", schedule, SCHEDULES)
    chunks = {"dualpipe": 2, "interleaved": n_chunks}.get(schedule, 1)
    require_playable(n_stages, n_microbatches, chunks)
    K, M = n_stages, n_microbatches
    if schedule == "dualpipe":
        for name, value in dict(n_stages=K, n_microbatches=M).items():
            require(value % 2 == 0, name, value, "an even number, for dualpipe's two directions")
        plans = [_dualpipe(rank, K, max(M, 2 * K)) for rank in range(K)]
        return [_number_tasks(plan, M // 2, (0, M // 2)) for plan in plans]
    if schedule == "interleaved":
        whole = -(-M // K) * K
        plans = [_interleaved(rank, K, whole, n_chunks) for rank in range(K)]
    else:
        plan = {"gpipe": _gpipe, "1f1b": _1f1b, "zero-bubble": _zero_bubble}[schedule]
        plans = [plan(rank, K, M) for rank in range(K)]
    return [_number_tasks(plan, M, (0,) * n_chunks) for plan in plans]


def require_playable(n_stages: int, n_microbatches: int, n_chunks: int) -> None:
    """Refuse sizes whose task lists would take minutes or fill the memory."""
    # an interleaved order is laid out for as many as there are stages, a dualpipe for twice as many
    passes = n_stages**2
    require(passes <= MOST_PASSES, "n_stages", n_stages, f"at most {isqrt(MOST_PASSES)}")
    most = MOST_PASSES // passes
    allowed = f"at most {MOST_PASSES} over the square of n_stages={n_stages}, {most}"
    require(n_chunks <= most, "n_chunks", n_chunks, allowed)
    most = MOST_PASSES // (n_stages * n_chunks)
    allowed = f"at most {MOST_PASSES} over n_stages={n_stages} and n_chunks={n_chunks}, {most}"
    require(n_microbatches <= most, "n_microbatches", n_microbatches, allowed)


def _number_tasks(plan: Iterable[Step], limit: int, first: tuple[int, ...]) -> list[Task]:
    """Tasks of a plan: the nth forward of a chunk and its nth backward are of micro-batch n.

    Numbers start at `first[chunk]`; the `limit`-th and later ones of a chunk are left out.
    A W belongs to the earliest I that has no W yet, whatever chunk it names.
    """
    counts: defaultdict[tuple[bool, int], Iterator[int]] = defaultdict(count)
    waiting: deque[tuple[int, int]] = deque()
    tasks = []
    for kind, chunk, together in plan:
        if kind == "W":
            number, chunk = waiting.popleft()
        else:
            number = next(counts[kind == "F", chunk])
        if kind == "I":
            waiting.append((number, chunk))
        if number < limit:
            tasks.append(Task(kind, first[chunk] + number, chunk, together))
        elif tasks and tasks[-1].together:  # its partner is left out
            tasks[-1] = tasks[-1]._replace(together=False)
    return tasks


def _steps(kinds: str) -> list[Step]:
    return [(kind, 0, False) for kind in kinds]


def _gpipe(rank: int, K: int, M: int) -> list[Step]:
    return _steps("F" * M + "B" * M)


def _1f1b(rank: int, K: int, M: int) -> list[Step]:
    """A rank runs ahead by as many forwards as there are ranks after it."""
    ahead = min(K - 1 - rank, M)
    return _steps("F" * ahead + "FB" * (M - ahead) + "B" * ahead)


def _zero_bubble(rank: int, K: int, M: int) -> list[Step]:
    """1F1B whose Ws lag behind their Is by as many micro-batches as there are earlier ranks.

    The Ws left over fill the end, where earlier ranks still wait for gradients.
    """
    ahead = min(K - 1 - rank, M)
    late = min(rank, M - ahead)
    steady = "FI" * late + "FIW" * (M - ahead - late)
    return _steps("F" * ahead + steady + "IW" * ahead + "W" * late)


def _interleaved(rank: int, K: int, M: int, n_chunks: int) -> list[Step]:
    """K micro-batches pass one chunk, then the next chunk; M is a multiple of K."""
    forwards = [("F", step // K % n_chunks, False) for step in range(M * n_chunks)]
    backwards = [("B", n_chunks - 1 - chunk, False) for _, chunk, _ in forwards]
    ahead = min(2 * (K - 1 - rank) + (n_chunks - 1) * K, len(forwards))
    late = len(forwards) - ahead
    pairs = zip(forwards[ahead:], backwards[:late], strict=True)
    return [*forwards[:ahead], *(step for pair in pairs for step in pair), *backwards[late:]]


def _dualpipe(rank: int, K: int, M: int) -> list[Step]:
    """In eight phases, as in the authors' repository; M is at least 2 K.

    `near` is the chunk whose micro-batches enter at this rank's end of the pipeline; `outer` ranks
    lie between the rank and that end, `inner` between it and the middle.
    """
    near, far = (0, 1) if rank < K // 2 else (1, 0)
    outer = min(rank, K - 1 - rank)
    inner = K // 2 - 1 - outer
    Fn, Bn, In, W = ((kind, near, False) for kind in "FBIW")
    Ff, Bf, If = ((kind, far, False) for kind in "FBI")
    near_pair, far_pair = [("F", near, True), Bf], [("F", far, True), Bn]
    plan = [Fn] * (2 * inner) + [Fn, Ff] * (outer + 1) + [If, W, Ff] * inner
    steady = (near_pair + far_pair) * (M // 2 - K + outer + 1)
    if inner == 0:
        steady[0] = Fn  # run alone: the other middle rank's backward needs its output
    plan += steady + [Bf, *far_pair] * inner
    plan += ([Bf, Bn] * (outer + 1))[: outer + 1] + ([If, In] * (outer + 1))[outer + 1 :]
    return plan + [W, In] * inner + [W] * (outer + 1)


check_module(__name__)
