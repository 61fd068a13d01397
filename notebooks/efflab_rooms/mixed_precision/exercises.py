"""Notebook 06's exercises: what is asked, and how an answer is judged."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from efflab import bench
from efflab.acceleration import block_formats
from efflab.acceleration.precision import FORMATS
from efflab.config import ModelConfig
from efflab.lab import Exercise, number, tr
from efflab.model import Transformer
from efflab_rooms.mixed_precision import measure

REACH = range(-2, 3)
"""Steps from the standard's exponent among which a block's best one is sought in 06-2."""
N_STEPS, LAST, SLACK = 60, 20, 0.05
LEAN = ModelConfig(2, 4, 128, 512, 2048, 64, causal=True)


def _check_rounding(answer):
    numbers = (1.0, 0.1, -3.14159, 2.5e-5, 3e-8, 65519.0, 1.03125, 0.0)
    numbers += (1.125, -1.375, 1.00390625, 2.0**-25)  # ties in e5m2, bf16 and fp16
    for f in (FORMATS[name] for name in ("bf16", "fp16", "fp8_e5m2")):
        for x in (x for x in numbers if abs(x) < f.max):
            expected = f.cast(torch.tensor(x, dtype=torch.float64)).item()
            text = np.format_float_positional(x)
            what = f"round_to({text}, {f.exponent_bits}, {f.mantissa_bits})"
            yield what, True, float(answer(x, f.exponent_bits, f.mantissa_bits)) == expected


def block_error(exponents: Callable | None = None) -> float:
    """MXFP4's squared error of a weight of stdlib-gpt, with the standard's scales or others."""
    weight, _ = measure.weight_and_gradient()
    blocks = weight.unflatten(-1, (-1, block_formats.BLOCK))
    own = None if exponents is None else torch.as_tensor(exponents(blocks)).long()
    decoded = block_formats.quantize(weight, "mxfp4", exponents=own).dequantize()
    return (decoded - weight).square().sum().item()


def best_exponents(blocks: torch.Tensor) -> torch.Tensor:
    """The exponent of least error for each block (..., 32), by trying all in reach."""
    rows = blocks.flatten(-2)
    standard = block_formats.block_exponents(blocks, block_formats.ELEMENTS["mxfp4"])
    tries = torch.stack([standard + step for step in REACH])
    decoded = (block_formats.quantize(rows, "mxfp4", exponents=e).dequantize() for e in tries)
    errors = [(rows.view_as(blocks) - blocks).square().sum(-1) for rows in decoded]
    return tries.gather(0, torch.stack(errors).argmin(0, keepdim=True))[0]


def _check_blocks(answer):
    own, least, standard = map(block_error, (answer, best_exponents, None))
    share, target = ((error / standard) ** 0.5 for error in (own, least))
    template = "error: {share}% of the standard's; best possible: {target}%"
    what = tr(template, share=number(100 * share, 4), target=number(100 * target, 4))
    yield what, True, share <= target + 1e-4


def train(prepare: Callable, n_steps: int) -> list[float]:
    """Losses of a tiny model trained as `prepare(model)` -> (model, optimizer) has it."""
    torch.manual_seed(0)
    model, optimizer = prepare(Transformer(LEAN))
    losses = []
    for step in range(n_steps):
        ids, targets = measure.windows(step)
        loss = F.cross_entropy(model(ids).float().flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@bench.one_thread()
def bytes_and_loss(prepare: Callable) -> tuple[int, float]:
    """(bytes of all tensors of two steps at once, mean of the last losses)."""
    measure.windows(0)  # the corpus is read before anything is counted
    losses = train(prepare, N_STEPS)
    return bench.peak_bytes(lambda: train(prepare, 2)), sum(losses[-LAST:]) / LAST


@lru_cache(maxsize=1)
def fp32_bytes_and_loss() -> tuple[int, float]:
    """What fp32 needs and reaches."""
    return bytes_and_loss(lambda model: (model, torch.optim.AdamW(model.parameters(), lr=3e-3)))


def _check_lean(answer):
    n_bytes, loss = bytes_and_loss(answer)
    full_bytes, full_loss = fp32_bytes_and_loss()
    share = 100 * n_bytes / full_bytes
    what = tr("bytes: {share}% of fp32's; limit: 60%", share=number(share))
    yield what, True, share <= 60
    template = "loss: {loss}; fp32: {full}; at most {slack} higher"
    what = tr(template, loss=number(loss, 4), full=number(full_loss, 4), slack=SLACK)
    yield what, True, loss <= full_loss + SLACK


EXERCISES = {
    "06-1": Exercise(_check_rounding),
    "06-2": Exercise(_check_blocks),
    "06-3": Exercise(_check_lean),
}
