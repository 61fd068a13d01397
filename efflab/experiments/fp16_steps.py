"""A training step in FP16 with loss scaling over one in TF32, on a GPU with tensor cores.

The design to come of `fp16-int8.training`. The model is the one of `gpu_bench`'s step, trained by
AdamW on one batch of random texts of 512 tokens, so that it says nothing about quality. Steps of
all recipes are interleaved, each on a model of its own that began alike; bf16 and fp32 are shown
and decide nothing. What is timed is a step until the GPU is done, launches included, with the
attention kernels that torch chooses for each format: time in the GPU's kernels stands beside it.
Each case has a process of its own, so that the interval over seeds covers processes of one machine.
A step that loss scaling skips does less work: those of the timed steps are counted.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from efflab import bench
from efflab.errors import require
from efflab.estimate import Estimate
from efflab.experiments.gpu_bench import DTYPES, Sizes, in_tf32, make_model, random_ids
from efflab.experiments.int8_latency import over_seeds
from efflab.experiments.isolated import run_isolated
from efflab.experiments.record import round_floats, run_cases
from efflab.experiments.registration import rules_for
from efflab.model import Transformer

NAME = "fp16-steps"
BATCH_SIZES, SEEDS, REPEATS, WARMUP = (4, 32), tuple(range(100, 105)), 21, 20
"""Texts of a step; seeds; rounds of timed steps, and steps before, in which the scale settles."""
SIZES, LR = Sizes(), 1e-4
BASELINE = "tf32"


class Trainer:
    """A model with its optimizer, trained in one recipe: "tf32", or one of `gpu_bench.DTYPES`."""

    def __init__(self, model: Transformer, recipe: str, ids: Tensor):
        self.model, self.recipe, self.ids = deepcopy(model), recipe, ids
        # fused: any other would make the scaler alone wait for the GPU in the middle of its step
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LR, fused=True)
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
            logits = self.model(self.ids).flatten(0, 1).float()
            loss = F.cross_entropy(logits, self.ids.roll(-1, 1).flatten())  # all T, a multiple of 8
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.loss = loss.detach()  # read it later: that would wait for the GPU


def measure(
    n: int, seed: int, *, device="cuda", sizes: Sizes = SIZES, warmup=WARMUP, repeats=REPEATS
) -> dict:
    """Times of a step of `n` texts over TF32's by recipe, medians of paired repeats.

    `again`: TF32's second run over its first; `milliseconds` of a step, and `kernel_milliseconds`
    in the GPU's kernels, by recipe; `losses` after the warm-up, in nats per token; `n_skipped`:
    timed steps that loss scaling skipped.
    """
    torch.manual_seed(seed)
    model = make_model(sizes)
    ids = random_ids(model, n).to(device)
    trainers = {name: Trainer(model.to(device), name, ids) for name in (BASELINE, *DTYPES)}
    calls: dict[Hashable, Callable] = {name: trainer.step for name, trainer in trainers.items()}
    for call in list(calls.values()) * warmup:
        call()
    losses = {name: trainer.loss.item() for name, trainer in trainers.items()}
    kernels = {name: 1e3 * kernel_seconds(call) for name, call in calls.items()}
    scaler = trainers["fp16"].scaler
    before = scaler.get_scale()
    times = bench.compare(calls.pop(BASELINE), calls, 0, repeats)
    row = {name: ratio.mean for name, ratio in times.ratios.items()}
    steps = {BASELINE: times.timings["baseline"]} | {name: times.timings[name] for name in calls}
    milliseconds = {name: 1e3 * timing.median for name, timing in steps.items()}
    row |= dict(again=times.again.mean, milliseconds=milliseconds, kernel_milliseconds=kernels)
    # each skipped step halves the scale, and it does not grow within so few steps
    n_skipped = round(math.log2(before / scaler.get_scale()))
    return round_floats(row | dict(losses=losses)) | dict(n_skipped=n_skipped)


def kernel_seconds(call: Callable) -> float:
    """Seconds in which the GPU's kernels run during a call; 0 on a CPU."""
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profile:
        call()
        bench.synchronize()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


def run_one(n: int, seed: int) -> dict:
    """Measure in a separate process."""
    return run_isolated(f"{__name__}:measure", dict(n=n, seed=seed), timeout=180)


def run(*, fresh: bool = False) -> dict:
    """Every batch size and seed on this GPU; recorded as data/experiments/fp16-steps."""
    require(torch.cuda.is_available(), "device", "none", "a CUDA GPU")
    gpu = dict(gpu=torch.cuda.get_device_properties(0).name, cuda=torch.version.cuda)
    gpu |= dict(cudnn=torch.backends.cudnn.version())
    own = dict(loss_scaling=True, baseline=BASELINE, lr=LR, repeats=REPEATS, warmup=WARMUP)
    own |= dict(model=SIZES.model)
    cases = [dict(n=n, seed=seed) for seed in SEEDS for n in BATCH_SIZES]
    return run_cases(NAME, cases, run_one, settings=gpu | own, rules=rules_for(NAME), fresh=fresh)


def cases(runs: Iterable[Mapping], recipe: str = "fp16") -> dict[str, Estimate]:
    """{"step-fp16-4": a step's time over TF32's with 4 texts, "step-fp16-32": with 32}.

    Mean and interval over seeds, each a process, widened by the A/A noise.
    """
    groups: dict[int, list[Mapping]] = {}
    for run in runs:
        groups.setdefault(run["n"], []).append(run)
    return {f"step-{recipe}-{n}": over_seeds(own, recipe) for n, own in groups.items()}
