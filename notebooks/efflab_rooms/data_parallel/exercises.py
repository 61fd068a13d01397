"""Notebook 12's exercises: what is asked, and how an answer is judged."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from efflab import bench
from efflab.distributed import buckets
from efflab.distributed.buckets import Trace, Wire
from efflab.distributed.data_parallel import LEARNING_RATE, MOMENTUM, new_model
from efflab.distributed.launch import RankPool
from efflab.lab import Exercise, number, tr
from efflab.train import language_model_loss
from efflab_rooms.data_parallel import equal

# --- 12-1: the ring --------------------------------------------------------------------------


def _check_ring(answer):
    for n, size in ((2, 1), (3, 2), (4, 3), (7, 1)):
        rng = torch.Generator().manual_seed(n)
        parts = [[torch.randint(0, 9, (size,), generator=rng) for _ in range(n)] for _ in range(n)]
        total = [sum(parts[rank][i] for rank in range(n)) for i in range(n)]
        sent: Counter = Counter()

        def send(rank, i, parts=parts, sent=sent):
            sent[rank] += 1
            return parts[rank][i].clone()

        answer(parts, send)
        what = f"n = {n}"
        held = [[part.tolist() for part in rank] for rank in parts]
        yield (
            tr("{what}: every rank has every sum", what=what),
            [[t.tolist() for t in total]] * n,
            held,
        )
        most = max(sent.values(), default=0)
        text = tr("{what}: a rank sends {found} parts, at most {most} are needed", what=what,
                  found=most, most=2 * (n - 1))  # fmt: skip
        yield text, True, 0 < most <= 2 * (n - 1)


# --- 12-2: buckets ---------------------------------------------------------------------------

SECONDS, SIZES = [0.02] * 12, [2**20] * 12
WIRE = Wire(0.03, 150e6)
DEFAULT_MB, TARGET, TRIES = 25.0, 0.55, 2


def exposed(pool: RankPool, bucket_mb: float) -> float:
    """Seconds that ranks wait for the wire after their backward pass: the least of a few tries."""

    def once() -> Trace:
        return pool.run(buckets.sleep_on_rank, SECONDS, SIZES, bucket_mb, WIRE, timeout=60)[0]

    return min(trace.seconds - trace.backward for trace in (once() for _ in range(TRIES)))


def _check_buckets(answer):
    is_size = isinstance(answer, int | float) and 0 < answer <= 1000
    yield tr("a size in MiB, above 0"), True, is_size
    with RankPool(2) as pool:
        mine, default = exposed(pool, float(answer)), exposed(pool, DEFAULT_MB)
    what = tr("waiting: {share} of what DDP's 25 MiB leave; at most {most} is asked",
              share=number(mine / default), most=TARGET)  # fmt: skip
    yield what, True, mine <= TARGET * default


# --- 12-3: fewer bytes -----------------------------------------------------------------------

N_RANKS, N_STEPS, LAST = 4, 24, 8
SHARE, SLACK = 0.125, 0.05
Encode = Callable[[Tensor, tuple], tuple[Tensor, ...]]
Decode = Callable[[tuple[Tensor, ...], torch.Size], Tensor]


@bench.one_thread()
def trained(encode: Encode | None, decode: Decode | None) -> tuple[float, float]:
    """(mean of the last losses, bytes of a gradient as sent over fp32's) of four ranks in one.

    What a rank contributes to the average is what arrives: `decode(encode(gradient, key), shape)`.
    """
    job, model = equal.job(8, 64, 2), new_model(equal.CONFIG)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    rows = list(zip(job.ids.chunk(N_RANKS), job.targets.chunk(N_RANKS), strict=True))
    losses, sent, whole = [], 0, 0
    for _ in range(N_STEPS):
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for rank, batch in enumerate(rows):
            optimizer.zero_grad()
            loss = language_model_loss(model, *batch)
            loss.backward()
            losses.append(loss.item())
            for name, p in model.named_parameters():
                payload = (p.grad,) if encode is None else encode(p.grad.clone(), (rank, name))
                arrived = payload[0] if decode is None else decode(payload, p.grad.shape)
                total[name] += arrived / N_RANKS
                sent += sum(t.nbytes for t in payload)
                whole += p.grad.nbytes
        for name, p in model.named_parameters():
            p.grad = total[name]
        optimizer.step()
    last = losses[-N_RANKS * LAST :]
    return sum(last) / len(last), sent / whole


@lru_cache(maxsize=1)
def uncompressed() -> float:
    """The loss that whole gradients reach."""
    return trained(None, None)[0]


def _check_compression(answer):
    encode, decode = answer
    loss, share = trained(encode, decode)
    yield (
        tr("bytes: {share} % of the gradients'; at most {most} % is asked",
           share=number(100 * share), most=100 * SHARE),
        True,
        share <= SHARE,
    )  # fmt: skip
    what = tr("loss: {loss}, with whole gradients {full}; at most {slack} more",
              loss=number(loss, 4), full=number(uncompressed(), 4), slack=SLACK)  # fmt: skip
    yield what, True, loss <= uncompressed() + SLACK


EXERCISES = {
    "12-1": Exercise(
        _check_ring,
        hint="Two laps of n - 1 steps. In step s of the first, rank r sends part r - s, and rank "
        "r + 1 adds it to its own. Take what all ranks send before anybody adds. In the second lap "
        "rank r sends part r + 1 - s, and rank r + 1 replaces its own.",
    ),
    "12-2": Exercise(
        _check_buckets,
        hint="After the last layer one bucket is still to travel: latency and its bytes. Small "
        "ones are short, but if a bucket takes longer than its layers compute, they queue.",
    ),
    "12-3": Exercise(
        _check_compression,
        hint="Send the largest twentieth of the values and where they stand, and add what was not "
        "sent to the next step's gradient (a dictionary by key keeps it).",
    ),
}
