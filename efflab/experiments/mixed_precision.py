"""Loss curves in fp32, bf16 autocast, bf16 throughout and scaled FP8: what fewer bits cost.

`CONTROL`, 8-bit weights without a master copy, has to look worse.

For every seed the same initial weights and the same batches, so that within a seed two runs differ
in the precision alone. Small and short on purpose: its beginning is repeated in a notebook.
"""

from itertools import product

import torch
from torch import Tensor, nn

from efflab import train
from efflab.acceleration.precision import FORMATS
from efflab.bench import one_thread
from efflab.config import ModelConfig
from efflab.errors import require_int, require_one_of
from efflab.experiments.record import round_floats, run_cases
from efflab.experiments.training import held_out_loss, loss_in, training_windows
from efflab.model import Transformer

NAME = "mixed-precision"
CONFIG = ModelConfig(4, 4, 64, 256, 2048, 128, causal=True)
BATCH_SIZE, SEQ_LEN, N_STEPS, N_WINDOWS = 4, 64, 400, 64
LR = 3e-3
EARLY = 40  # first steps whose mean loss is recorded too: a notebook repeats them
EVERY = 20  # steps per point of the recorded curve
SEEDS = (0, 1, 2, 3, 4)
PRECISIONS = ("fp32", "bf16 autocast", "bf16 only", "fp8 scaled", "fp8 weights")
CONTROL = "fp8 weights"  # too low a precision, which the experiment has to detect


class Fp8Product(torch.autograd.Function):
    """x w^T of e4m3 operands with e5m2 gradients (Micikevicius et al. 2022), summed in fp32."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        """(..., n) and (m, n) -> (..., m)."""
        x, weight = (round_to_fp8(tensor, torch.float8_e4m3fn) for tensor in (x, weight))
        ctx.save_for_backward(x, weight)
        return x @ weight.mT

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the weight."""
        x, weight = ctx.saved_tensors
        gradient = round_to_fp8(gradient, torch.float8_e5m2)
        return gradient @ weight, gradient.flatten(0, -2).mT @ x.flatten(0, -2)


def round_to_fp8(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as 8-bit floats with one scale for the tensor, which fits its largest value."""
    scale = torch.finfo(dtype).max / x.abs().max().clamp_min(1e-30)
    return (x * scale).to(dtype).to(x.dtype) / scale


def multiply_in_fp8(model: nn.Module) -> None:
    """Let the linear maps multiply in scaled FP8; weights and their updates stay in fp32."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = lambda x, own=module: Fp8Product.apply(x, own.weight) + own.bias


class Fp8AdamW(torch.optim.AdamW):
    """AdamW whose weights are rounded to e4m3 after every step, with no master copy."""

    @torch.no_grad()
    def step(self) -> None:
        """One step, then the rounding."""
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.copy_(FORMATS["fp8_e4m3fn"].cast(parameter))


def train_until(
    precision: str, seed: int = 0, stop: int = N_STEPS
) -> tuple[list[float], Transformer]:
    """(each step's loss in nats, the model) after `stop` of the 400 steps."""
    require_one_of("precision", precision, PRECISIONS)
    require_int("seed", seed, 0)
    torch.manual_seed(seed)
    model = Transformer(CONFIG).to(torch.bfloat16 if precision == "bf16 only" else torch.float32)
    if precision == "fp8 scaled":
        multiply_in_fp8(model)
    batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6)
    optimizers = train.adamw(model, LR)
    if precision == CONTROL:
        optimizers = [Fp8AdamW(o.param_groups, betas=(0.9, 0.95)) for o in optimizers]
    with one_thread():
        options = dict(stop=stop, loss_fn=loss_in(bf16=precision == "bf16 autocast"))
        return train.fit(model, batch, N_STEPS, optimizers=optimizers, **options), model


def early_loss(losses: list[float]) -> float:
    """Mean of the last half of the first `EARLY` steps."""
    half = losses[EARLY // 2 : EARLY]
    return sum(half) / len(half)


def run_one(precision: str, seed: int) -> dict:
    """The curve, its beginning, and the held-out loss (nats per token), evaluated in fp32."""
    losses, model = train_until(precision, seed)
    curve = [sum(losses[i : i + EVERY]) / EVERY for i in range(0, N_STEPS, EVERY)]
    final = held_out_loss(model.float(), N_WINDOWS, SEQ_LEN)
    return round_floats(dict(early=early_loss(losses), loss=final, curve=curve))


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every precision with every seed; recorded as data/experiments/mixed-precision."""
    settings = dict(n_layer=CONFIG.n_layer, d_model=CONFIG.d_model, seq_len=SEQ_LEN, lr=LR)
    settings |= dict(batch_size=BATCH_SIZE, n_steps=N_STEPS, early=EARLY, n_windows=N_WINDOWS)
    cases = [dict(precision=p, seed=seed) for p, seed in product(PRECISIONS, SEEDS)]
    return run_cases(NAME, cases, run_one, settings=settings, fresh=fresh)
