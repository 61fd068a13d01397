"""A training step in FP16 with loss scaling over one in TF32, on a GPU with tensor cores.

The design to come of `fp16-int8.training`. The model is the one of `gpu_bench`'s step, trained by
AdamW on random texts of 512 tokens. Steps of all recipes are interleaved, each on a model of its
own that began alike; bf16 and fp32 are shown and decide nothing. Each case has a process of its
own, so that the interval over seeds covers processes. A step that loss scaling skips does less
work: those of the timed steps are counted.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab import bench
from efflab.errors import require
from efflab.estimate import Estimate, of_mean
from efflab.experiments.gpu_bench import DTYPES, Sizes, in_tf32, make_model, random_ids
from efflab.experiments.isolated import run_isolated
from efflab.experiments.record import round_floats, run_cases
from efflab.experiments.registration import rules_for
from efflab.model import Transformer

NAME = "fp16-steps"
BATCH_SIZES, SEEDS, REPEATS, WARMUP = (4, 32), tuple(range(100, 105)), 21, 20
"""Texts of a step; seeds; timed steps of a recipe, and those before, in which the scale settles."""
SIZES, LR = Sizes(), 1e-4
BASELINE = "tf32"


class Trainer:
    """A model with its optimizer, trained in one recipe: "tf32", or one of `gpu_bench.DTYPES`."""

    def __init__(self, model: Transformer, recipe: str, ids: Tensor):
        self.model, self.recipe, self.ids = deepcopy(model), recipe, ids
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LR)
        self.scaler = torch.amp.GradScaler(ids.device.type, enabled=recipe == "fp16")
        self.loss = torch.tensor(float("nan"))

    def step(self) -> None:
        """One step; with FP16 the loss is scaled, and gradients that overflow change no weight."""
        if self.recipe == BASELINE:
            in_tf32(self._step)
        else:
            self._step()

    def _step(self) -> None:
        dtype = DTYPES.get(self.recipe, torch.float32)
        with torch.autocast(self.ids.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = self.model(self.ids[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1).float(), self.ids[:, 1:].flatten())
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.loss = loss.detach()  # read it later: that would wait for the GPU


def measure(
    n: int, seed: int, *, device="cuda", sizes: Sizes = SIZES, warmup=WARMUP, repeats=REPEATS
) -> dict:
    """Times of a step of `n` texts over TF32's by recipe, medians of paired repeats.

    `again`: TF32's second run over its first; `milliseconds`: TF32's; `n_skipped`: timed steps
    that loss scaling skipped; `losses`: of the last step by recipe, in nats per token.
    """
    torch.manual_seed(seed)
    model = make_model(sizes)
    ids = random_ids(model, n).to(device)
    trainers = {name: Trainer(model.to(device), name, ids) for name in (BASELINE, *DTYPES)}
    calls: dict[Hashable, Callable] = {name: trainer.step for name, trainer in trainers.items()}
    for call in list(calls.values()) * warmup:
        call()
    scaler = trainers["fp16"].scaler
    before = scaler.get_scale()
    times = bench.compare(calls.pop(BASELINE), calls, 0, repeats)
    row = {name: ratio.mean for name, ratio in times.ratios.items()}
    row |= dict(again=times.again.mean, milliseconds=1e3 * times.timings["baseline"].median)
    losses = {name: trainer.loss.item() for name, trainer in trainers.items()}
    # each skipped step halves the scale, and it does not grow within so few steps
    n_skipped = round(math.log2(before / scaler.get_scale()))
    return round_floats(row | dict(losses=losses)) | dict(n_skipped=n_skipped)


def run_one(n: int, seed: int) -> dict:
    """Measure in a separate process."""
    return run_isolated(f"{__name__}:measure", dict(n=n, seed=seed))


def run(*, fresh: bool = False) -> dict:
    """Every batch size and seed on this GPU; recorded as data/experiments/fp16-steps."""
    require(torch.cuda.is_available(), "device", "none", "a CUDA GPU")
    gpu = dict(gpu=torch.cuda.get_device_properties(0).name, cuda=torch.version.cuda)
    own = dict(loss_scaling=True, baseline=BASELINE, lr=LR, repeats=REPEATS, warmup=WARMUP)
    own |= dict(model=SIZES.model)
    cases = [dict(n=n, seed=seed) for n in BATCH_SIZES for seed in SEEDS]
    return run_cases(NAME, cases, run_one, settings=gpu | own, rules=rules_for(NAME), fresh=fresh)


def cases(runs: Iterable[Mapping], recipe: str = "fp16") -> dict[str, Estimate]:
    """{"step-fp16-4": a step's time over TF32's with 4 texts, "step-fp16-32": with 32}.

    Mean and interval over seeds, each a process, widened by the A/A noise.
    """
    groups: dict[int, list[Mapping]] = {}
    for run in runs:
        groups.setdefault(run["n"], []).append(run)
    estimates = {}
    for n, own in groups.items():
        ratio, again = (of_mean([run[key] for run in own]) for key in (recipe, "again"))
        estimates[f"step-{recipe}-{n}"] = ratio.with_noise(again.band)
    return estimates
