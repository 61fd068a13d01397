"""Notebook 06's numbers: rounding errors, gradients, bytes and seconds of a step, records."""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from efflab import bench, data, points, profile, train
from efflab.acceleration import block_formats, recipes
from efflab.acceleration.precision import FORMATS
from efflab.acceleration.recipes import RECIPES
from efflab.base.json_files import parse_json
from efflab.compression import affine
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES
from efflab.errors import require_int, require_one_of
from efflab.estimate import Estimate, paired_difference
from efflab.experiments import mixed_precision
from efflab.experiments.record import read_record
from efflab.model import Transformer

TINY = ModelConfig(2, 4, 64, 256, 2048, 64, causal=True)
ENCODERS = {
    "INT4, groups of 32": partial(affine.quantize, bits=4, group_size=32),
    "MXFP4": partial(block_formats.quantize, name="mxfp4"),
    "INT8, groups of 32": partial(affine.quantize, bits=8, group_size=32),
    "MXFP8 e4m3": partial(block_formats.quantize, name="mxfp8_e4m3"),
    "MXFP8 e5m2": partial(block_formats.quantize, name="mxfp8_e5m2"),
}
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
OF_A_TENSOR = {
    "INT8, one scale": lambda x: affine.quantize(x, bits=8).dequantize(),
    "FP8 e4m3, one scale": partial(mixed_precision.round_to_fp8, dtype=E4M3),
    "FP8 e5m2, one scale": partial(mixed_precision.round_to_fp8, dtype=E5M2),
    "FP8 e4m3, no scale": lambda x: x.to(E4M3).to(x.dtype),
}
"""What a tensor becomes in eight bits a value."""


@lru_cache(maxsize=1)
def weight_and_gradient() -> tuple[Tensor, Tensor]:
    """A layer's weight in stdlib-gpt, (768, 192), and its gradient in a real step."""
    model = points.language_model()
    weight = model.get_parameter("layers.2.ffn.body.up.weight")
    loss = train.language_model_loss(model, *windows(0, 4, 128))
    (gradient,) = torch.autograd.grad(loss, weight)
    return weight.detach(), gradient


def relative_error(decoded: Tensor, x: Tensor) -> float:
    """Root mean square of the error, in per cent of the values' own."""
    return 100 * ((decoded - x).norm() / x.norm()).item()


def share_lost(decoded: Tensor, x: Tensor) -> float:
    """Per cent of the values other than zero that came back as zero."""
    return 100 * (decoded[x != 0] == 0).double().mean().item()


def windows(seed: int, batch_size: int = 2, seq_len: int = 32) -> tuple[Tensor, Tensor]:
    """Tokens and targets; few by default, as fp16 is emulated where a CPU cannot multiply it."""
    return data.random_windows(data.stdlib_tokens("train"), batch_size, seq_len, seed)


def step_gradients(batch_size: int, seq_len: int) -> dict[str, Tensor]:
    """Magnitudes above zero of a real fp32 step of stdlib-gpt, an even sample of each kind.

    "activations": gradients of every linear map's output, which the backward pass hands on.
    """
    require_int("batch_size", batch_size)
    model, outputs = points.language_model(), []
    hooks = [
        module.register_full_backward_hook(lambda _, __, grads: outputs.append(grads[0]))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    loss = train.language_model_loss(model, *windows(0, batch_size, seq_len))
    own = torch.autograd.grad(loss, list(model.parameters()))
    for hook in hooks:
        hook.remove()
    return {"activations": magnitudes(outputs), "parameters": magnitudes(own)}


def magnitudes(tensors: Sequence[Tensor], at_most: int = 2**18) -> Tensor:
    """Absolute values above zero of all tensors, at most so many, spread evenly."""
    values = torch.cat([t.flatten() for t in tensors]).abs()
    above = values[values > 0]
    return above[:: -(-len(above) // at_most)]


def fp16_shares(magnitudes: Tensor, scale: float = 1.0) -> dict[str, float]:
    """Per cent that fp16 makes zero, keeps with fewer bits (subnormal), or makes infinite."""
    fp16 = FORMATS["fp16"]
    scaled = fp16.cast(magnitudes.double() * scale)
    parts = {
        "zero": scaled == 0,
        "fewer bits": (scaled > 0) & (scaled < fp16.smallest_normal),
        "infinite": scaled.isinf(),
    }
    return {name: 100 * part.float().mean().item() for name, part in parts.items()}


# --- Bytes and seconds of a step -------------------------------------------------------------

MODEL = "stdlib-gpt"
MIXED_RECIPES = ("autocast", "master weights")
STEP_RECIPES = ("fp32", *MIXED_RECIPES, "16 bits only")
BACKWARD, PEAK = "kept for the backward pass", "whole step (peak)"


class MasterAdamW(torch.optim.AdamW):
    """AdamW on fp32 copies of a 16-bit model's parameters (Micikevicius et al. 2018)."""

    def __init__(self, parameters, lr: float = 1e-3):
        self.parameters = list(parameters)
        self.masters = [p.detach().float() for p in self.parameters]
        super().__init__(self.masters, lr=lr)

    @torch.no_grad()
    def step(self) -> None:
        """One step on the masters, whose rounded values the model gets."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = parameter.grad.float()
        super().step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
            master.grad = None


class Training(nn.Module):
    """A fresh stdlib-gpt by one recipe, with its gradients and optimizer state allocated.

    `chunk`: tokens whose logits are alive at once, made again for the backward pass; 0 keeps all.
    """

    def __init__(self, recipe: str, batch_size: int, seq_len: int, chunk: int = 0):
        super().__init__()
        require_one_of("recipe", recipe, STEP_RECIPES)
        require_int("chunk", chunk, 0)
        torch.manual_seed(0)
        dtype = torch.bfloat16 if RECIPES[recipe].weights == 2 else torch.float32
        self.model = Transformer(PRESETS[MODEL]).to(dtype)
        self.is_autocast, self.chunk = recipe == "autocast", chunk
        make = MasterAdamW if recipe == "master weights" else torch.optim.AdamW
        self.optimizer = make(self.model.parameters())
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()  # with no gradient: makes the state, moves nothing but by decay
        self.ids, self.targets = windows(0, batch_size, seq_len)

    def forward(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ids (B,T); logits become fp32."""
        targets = self.targets.flatten()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.is_autocast):
            hidden = self.model.encode(ids).flatten(0, 1)
            if not self.chunk:
                return self.loss(hidden, targets) / len(targets)
            chunks = zip(hidden.split(self.chunk), targets.split(self.chunk), strict=True)
            # the reentrant kind saves its inputs where `bench.saved_bytes` sees them
            losses = [checkpoint(self.loss, *chunk, use_reentrant=True) for chunk in chunks]
        return torch.stack(losses).sum() / len(targets)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy of hidden states (n,C) and targets (n,)."""
        logits = self.model.embedding.logits(hidden)
        return F.cross_entropy(logits.float(), targets, reduction="sum")

    def step(self) -> None:
        """Forward, backward, optimizer; gradients are zeroed and stay allocated."""
        self(self.ids).backward()
        self.optimizer.step()
        for parameter in self.parameters():
            parameter.grad.zero_()


@lru_cache(maxsize=32)
def step_bytes(recipe: str, batch_size: int, seq_len: int, chunk: int = 0) -> dict[str, int]:
    """Bytes of a step by part, and the most that was alive at once."""
    training = Training(recipe, batch_size, seq_len, chunk)
    parameters, optimizer = list(training.parameters()), training.optimizer
    moments = [value for state in optimizer.state.values() for value in state.values()]
    parts = {
        "weights": sum(p.nbytes for p in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters),
        "master weights": sum(m.nbytes for m in getattr(optimizer, "masters", ())),
        "optimizer": sum(value.nbytes for value in moments),
    }
    with profile.ProductsLeftOut():
        peak = sum(parts.values()) + bench.peak_bytes(training.step)
        return parts | {BACKWARD: bench.saved_bytes(training, training.ids), PEAK: peak}


BATCHES, LENGTH, CHUNK = (4, 10, 20), 512, 512
"""Sequences and tokens of each: about 2,000, 5,000 and 10,000 tokens a step."""


def grown_steps(batches: Sequence[int] = BATCHES) -> dict[tuple[int, int, str], dict[str, float]]:
    """`totals` of steps by (tokens, chunk, recipe), the loss whole and in chunks.

    Without autocast in chunks, which is not the leanest.
    """
    cases = [(chunk, recipe) for chunk in (0, CHUNK) for recipe in ("fp32", "master weights")]
    return {
        (n * LENGTH, chunk, recipe): totals(step_bytes(recipe, n, LENGTH, chunk))
        for n in batches
        for chunk, recipe in [*cases, (0, "autocast")]
    }


def formula_bytes(recipe: str, batch_size: int, seq_len: int) -> dict[str, float]:
    """The same parts by formula; autocast's 16-bit copies are kept for the backward pass."""
    parts = recipes.memory_parts(PRESETS[MODEL], seq_len, batch_size, RECIPES[recipe])
    parts[BACKWARD] = parts.pop("16-bit copies") + parts.pop("activations")
    return parts


def totals(parts: dict[str, float]) -> dict[str, float]:
    """Bytes of the state, of what is kept, and of the whole: by formula, their sum."""
    state = sum(n for part, n in parts.items() if part not in (BACKWARD, PEAK))
    backward = parts[BACKWARD]
    return {"state": state, BACKWARD: backward, PEAK: parts.get(PEAK, state + backward)}


def product_ratio(n: int = 512, repeats: int = 11) -> dict[str, float]:
    """bf16 over fp32 for an (n,n) product here: time with interval, A/A band, relative error."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=rng) for _ in range(2))
    short_a, short_b = a.bfloat16(), b.bfloat16()
    times = bench.compare(lambda: a @ b, {"bf16": lambda: short_a @ short_b}, 2, repeats)
    error = relative_error((short_a @ short_b).double(), a.double() @ b.double())
    return vars(times.ratios["bf16"]) | dict(band=times.band, error=error)


def ratio_without_bf16() -> dict[str, float]:
    """`product_ratio` in a process whose oneDNN, capped before torch loads, may use AVX2 alone."""
    call = f"from {__name__} import product_ratio as ratio; print(json.dumps(ratio(repeats=5)))"
    command = [sys.executable, "-c", f"import json; {call}"]
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    options = dict(text=True, check=True, capture_output=True, timeout=120)
    output = subprocess.run(command, env=environment, **options).stdout
    return parse_json(output.splitlines()[-1])


@lru_cache(maxsize=2)
def step_times(batch_size: int, seq_len: int, repeats: int = 7) -> bench.Comparison:
    """Training steps of stdlib-gpt by recipe, beside fp32 and fp32 again."""
    steps = {name: Training(name, batch_size, seq_len).step for name in STEP_RECIPES}
    return bench.compare(steps.pop("fp32"), steps, 1, repeats)


def cpu_ratios(batch_size: int, seq_len: int) -> dict[str, dict[str, float]]:
    """`product_ratio`, the same without the instructions, and whole training steps over fp32's."""
    ratios = {"matmul, 512 x 512": product_ratio()}
    if bench.cpu_features()["bf16"]:
        ratios["same, without bf16 instructions"] = ratio_without_bf16()
    times = step_times(batch_size, seq_len)
    steps = {f"training step: {name}": vars(ratio) for name, ratio in times.ratios.items()}
    return ratios | {what: ratio | dict(band=times.band) for what, ratio in steps.items()}


# --- Roofs and records -----------------------------------------------------------------------

SIZES = [2**i for i in range(5, 14)]


def baselines(device: str) -> list[str]:
    """What 16 bits can be compared with on a device: fp32, and tf32 where it has it."""
    return [name for name in ("fp32", "tf32") if name in DEVICES[device].peak_flops]


def product_gain(n: int, device: str, base: str) -> float:
    """How many times faster an (n,n) product can be in 16 bits, by its roofline."""
    return recipes.product_speedup(n, DEVICES[device], RECIPES["autocast"], RECIPES[base])


def step_gain(device: str, base: str, seq_len: int = 128, batch: int = 256) -> float:
    """How many times faster BERT-large's step can be in 16 bits with master weights."""
    case = PRESETS["bert-large"], seq_len, batch, DEVICES[device]
    old, new = (
        sum(recipes.step_seconds(*case, RECIPES[r]).values()) for r in (base, "master weights")
    )
    return old / new


def by_seed(precision: str, what: str) -> dict[int, float]:
    """{seed: "early", "loss" or "curve"} of one precision, as recorded."""
    runs = read_record(mixed_precision.NAME)["runs"]
    return {run["seed"]: run[what] for run in runs if run["precision"] == precision}


def difference(precision: str) -> Estimate:
    """Held-out nats more than fp32, paired by seed."""
    losses, base = by_seed(precision, "loss"), by_seed("fp32", "loss")
    return paired_difference([losses[seed] for seed in base], list(base.values()))
