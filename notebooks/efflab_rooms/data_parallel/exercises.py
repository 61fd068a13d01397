"""Notebook 12's exercises: what is asked, and how an answer is judged."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from efflab import bench
from efflab.distributed import buckets
from efflab.distributed.buckets import Wire
from efflab.distributed.data_parallel import LEARNING_RATE, MOMENTUM, new_model
from efflab.distributed.launch import RankPool
from efflab.lab import Exercise, number, tr
from efflab.train import language_model_loss
from efflab_rooms.data_parallel import measure


def _check_ring(answer):
    for n, size in ((2, 1), (3, 2), (4, 3), (7, 1)):
        values = torch.randint(0, 9, (n, n, size), generator=torch.Generator().manual_seed(n))
        total = values.sum(0).tolist()
        parts = [list(rank) for rank in values]
        sent: Counter = Counter()

        def send(rank, i, parts=parts, sent=sent):
            sent[rank] += 1
            return parts[rank][i].clone()

        answer(parts, send)
        held = [[part.tolist() for part in rank] for rank in parts]
        yield tr("{what}: every rank has every sum", what=f"n = {n}"), [total] * n, held
        counts, needed = [sent[rank] for rank in range(n)], 2 * (n - 1)
        words = dict(what=f"n = {n}", found=max(counts), needed=needed)
        text = tr("{what}: a rank sent {found} parts; each must send {needed}", **words)
        yield text, True, counts == [needed] * n


# --- 12-2: buckets -------------------------------------------------------------------------------

SECONDS, SIZES = [0.02] * 12, [2**20] * 12
WIRE = Wire(0.015, 150e6)
DEFAULT_MB, TARGET, TRIES = 25.0, 0.55, 2


def exposed_seconds(pool: RankPool, bucket_mb: float) -> float:
    """How long ranks wait for the wire after their backward pass: the least of a few tries."""
    args = SECONDS, SIZES, bucket_mb, WIRE
    traces = [pool.run(buckets.sleep_on_rank, *args, timeout=60)[0] for _ in range(TRIES)]
    return min(trace.seconds - trace.backward for trace in traces)


def _check_buckets(answer):
    is_size = isinstance(answer, int | float) and 0 < answer <= 1000
    yield tr("a size in MiB, above 0, at most 1,000"), True, is_size
    with RankPool(2) as pool:
        share = exposed_seconds(pool, float(answer)) / exposed_seconds(pool, DEFAULT_MB)
    text = "waiting: {share} times as long as with buckets of 25 MiB; at most {most} allowed"
    yield tr(text, share=number(share), most=TARGET), True, share <= TARGET


# --- 12-3: fewer bytes ---------------------------------------------------------------------------

N_RANKS, N_STEPS, LAST = 4, 24, 8
SHARE, SLACK = 0.125, 0.05
Encode = Callable[[Tensor, tuple], tuple[Tensor, ...]]
Decode = Callable[[tuple[Tensor, ...], torch.Size], Tensor]


@bench.one_thread()
def train(encode: Encode, decode: Decode) -> tuple[float, float]:
    """(mean of the last losses, bytes of a gradient as sent over fp32's) of four ranks in one.

    What a rank contributes to the average is what arrives: `decode(encode(gradient, key), shape)`.
    """
    job = measure.job(8, 64, N_STEPS)
    model = new_model(job.config)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    batches = list(zip(job.ids.chunk(N_RANKS), job.targets.chunk(N_RANKS), strict=True))
    losses, sent, whole = [], 0, 0
    for _ in range(N_STEPS):
        mean = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for rank, batch in enumerate(batches):
            optimizer.zero_grad()
            loss = language_model_loss(model, *batch)
            loss.backward()
            losses.append(loss.item())
            for name, p in model.named_parameters():
                payload = encode(p.grad.clone(), (rank, name))
                mean[name] += decode(payload, p.grad.shape) / N_RANKS
                sent += sum(t.nbytes for t in payload)
                whole += p.grad.nbytes
        for name, p in model.named_parameters():
            p.grad = mean[name]
        optimizer.step()
    last = losses[-N_RANKS * LAST :]
    return sum(last) / len(last), sent / whole


@lru_cache(maxsize=1)
def uncompressed_loss() -> float:
    """The loss that whole gradients reach."""
    return train(lambda gradient, key: (gradient,), lambda payload, shape: payload[0])[0]


def _check_compression(answer):
    loss, share = train(*answer)
    text = "bytes: {share}% of the gradients'; at most {most}% allowed"
    yield tr(text, share=number(100 * share), most=100 * SHARE), True, share <= SHARE
    words = dict(loss=number(loss, 4), full=number(uncompressed_loss(), 4), slack=SLACK)
    text = "loss: {loss}; with whole gradients: {full}; may be at most {slack} higher"
    yield tr(text, **words), True, loss <= uncompressed_loss() + SLACK


EXERCISES = {
    "12-1": Exercise(_check_ring),
    "12-2": Exercise(_check_buckets),
    "12-3": Exercise(_check_compression),
}
