"""Notebook 07's exercises: what is asked, and how an answer is judged."""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from efflab import bench
from efflab.acceleration import block, fusion
from efflab.lab import Exercise, tr
from efflab_rooms.compiler_fusion import measure

CHAINS = (
    ["add", "exp", "multiply"],
    ["dot", "add", "multiply", "erf", "multiply", "dot", "add"],
    ["dot", "divide", "reduce", "subtract", "exp", "reduce", "divide", "dot"],
    ["reduce"],
    ["dot", "dot", "reduce", "reduce"],
    ["subtract", "multiply", "reduce", "add", "sqrt", "divide"],
)


def kernels_of(chain: list[str]) -> list[list[str]]:
    """The kernels of a chain, by `fusion.fuse`, whose operations each read the one before."""
    reads = [{}, *({f"{i}": 4} for i in range(len(chain) - 1))]
    ops = [fusion.Op(f"{i}", opcode, reads[i], 4) for i, opcode in enumerate(chain)]
    return [[op.opcode for op in group] for group in fusion.fuse(ops)]


def _kernels(answer):
    for chain in CHAINS:
        yield f"kernels({chain})", kernels_of(chain), answer(list(chain))


def _times_fewer(answer):
    for seq_len, head_dim in ((4, 2), (256, 64), (4096, 64), (1, 1), (8192, 128)):
        size = seq_len, head_dim
        ratio = fusion.attention_bytes(*size) / fusion.attention_bytes(*size, fused="all")
        yield f"times_fewer({seq_len}, {head_dim})", ratio, answer(*size)


SHARE = 0.25
SHAPE = (1, 4, 1024, 64)


def written_out(q, k, v):
    """softmax(q kᵀ)v in eight operations of torch, scores in memory."""
    return measure.attention(block.torch_namespace(), q, k, v)


class _FusedCalls(TorchFunctionMode):
    """Counts the calls of torch's own fused attention."""

    n = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.n += func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _attention(answer):
    rng = torch.Generator().manual_seed(0)
    heads = [torch.randn(SHAPE, generator=rng) for _ in range(3)]
    with _FusedCalls() as fused:
        given = answer(*heads)
    if given is ...:
        yield "", None, ...
        return
    yield tr("calls to scaled_dot_product_attention"), 0, fused.n
    short = [x[:, :, :37].contiguous() for x in heads]
    yield tr("the values"), written_out(*heads).numpy(), answer(*heads).numpy()
    yield tr("the values, 37 tokens"), written_out(*short).numpy(), answer(*short).numpy()
    allowed = SHARE * bench.peak_bytes(lambda: written_out(*heads)) / 2**20
    used = bench.peak_bytes(lambda: answer(*heads)) / 2**20
    what = tr("at most {n:.0f} MiB of memory ({used:.1f} used)", n=allowed, used=used)
    yield what, True, used <= allowed
    calls = {"answer": lambda: answer(*heads)}
    result = bench.compare(lambda: written_out(*heads), calls, warmup=1, repeats=7)
    ratio = result.ratios["answer"]
    what = tr("no slower than the written-out form ({ratio:.2f} of its time)", ratio=ratio.mean)
    yield what, True, ratio.low <= 1 + result.band


EXERCISES = {
    "07-1": Exercise(_kernels),
    "07-2": Exercise(_times_fewer),
    "07-3": Exercise(_attention, tolerance=1e-4),
}
