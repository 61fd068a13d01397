"""Notebook 06's bytes: formulas beside a real training step, and what half the bytes would take."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, data
from efflab.acceleration import recipes
from efflab.acceleration.recipes import RECIPES
from efflab.config import PRESETS
from efflab.errors import require_one_of
from efflab.lab import Evidence, figures, tr
from efflab.lab.text import tr_name
from efflab.model import Transformer
from efflab_rooms.mixed_precision.published import batch_gains
from efflab_rooms.mixed_precision.verdicts import HALF

MODEL = "stdlib-gpt"
MEASURED = ("fp32", "autocast", "master weights", "16 bits only")
MIXED = ("autocast", "master weights")
KEPT = "kept for the backward pass"


class MasterAdamW:
    """AdamW on fp32 copies of a 16-bit model's parameters (Micikevicius et al. 2018)."""

    def __init__(self, model: nn.Module, lr: float = 1e-3):
        self.parameters = list(model.parameters())
        self.masters = [p.detach().float() for p in self.parameters]
        self.inner = torch.optim.AdamW(self.masters, lr=lr)
        self.state = self.inner.state

    @torch.no_grad()
    def step(self) -> None:
        """One step on the masters, whose rounded values the model gets."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = parameter.grad.float()
        self.inner.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)
            master.grad = None


class Loss(nn.Module):
    """A model's loss on fixed targets, under autocast or not; logits become fp32."""

    def __init__(self, model: nn.Module, targets: Tensor, autocast: bool):
        super().__init__()
        self.model, self.targets, self.autocast = model, targets, autocast

    def forward(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ids (B,T)."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            logits = self.model(ids)
        return F.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())


@dataclass(frozen=True)
class Training:
    """stdlib-gpt ready to train by one recipe; `step()` is one step on the same batch."""

    loss: Loss
    ids: Tensor
    optimizer: object
    masters: tuple[Tensor, ...]

    def step(self) -> float:
        """Forward, backward, optimizer; gradients are zeroed and stay allocated."""
        loss = self.loss(self.ids)
        loss.backward()
        self.optimizer.step()
        for parameter in self.loss.parameters():
            parameter.grad.zero_()
        return loss.item()


def ready(recipe: str, batch_size: int, seq_len: int) -> Training:
    """A fresh stdlib-gpt with its gradients and optimizer state allocated."""
    require_one_of("recipe", recipe, MEASURED)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if RECIPES[recipe].weights == 2 else torch.float32
    model = Transformer(PRESETS[MODEL]).to(dtype)
    is_master = recipe == "master weights"
    make: Callable = MasterAdamW if is_master else lambda m: torch.optim.AdamW(m.parameters())
    optimizer = make(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # with no gradient: makes the state and moves nothing but by weight decay
    stream = data.stdlib_tokens("train")
    ids, targets = data.random_windows(stream, batch_size, seq_len, seed=0)
    masters = tuple(optimizer.masters) if is_master else ()
    return Training(Loss(model, targets, recipe == "autocast"), ids, optimizer, masters)


@lru_cache(maxsize=16)
def measured(recipe: str, batch_size: int, seq_len: int) -> dict[str, int]:
    """Bytes of a real step by part, and the most that was alive at once ("peak")."""
    training = ready(recipe, batch_size, seq_len)
    parameters = list(training.loss.parameters())
    moments = [v for s in training.optimizer.state.values() for v in s.values()]
    parts = {
        "weights": sum(p.nbytes for p in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters),
        "master weights": sum(m.nbytes for m in training.masters),
        "optimizer": sum(v.nbytes for v in moments if torch.is_tensor(v)),
    }
    state = sum(parts.values())
    parts[KEPT] = bench.saved_bytes(training.loss, training.ids)
    return parts | {"peak": state + bench.peak_bytes(training.step)}


def formula(recipe: str, batch_size: int, seq_len: int, model: str = MODEL) -> dict[str, float]:
    """The same parts by formula; autocast's 16-bit copies are kept for the backward pass."""
    parts = recipes.memory_parts(PRESETS[model], seq_len, batch_size, RECIPES[recipe])
    kept = parts.pop("16-bit copies") + parts.pop("activations")
    return parts | {KEPT: kept}


def memory_rows(batch_size: int, seq_len: int) -> list[dict]:
    """Formula, measurement and ratio of every recipe; the last columns compare with fp32."""
    base = measured("fp32", batch_size, seq_len)
    rows = []
    for recipe in MEASURED:
        expected = formula(recipe, batch_size, seq_len)
        found = measured(recipe, batch_size, seq_len)
        for part, by_formula, real, full in (
            ("state", state_bytes(expected), state_bytes(found), state_bytes(base)),
            (KEPT, expected[KEPT], found[KEPT], base[KEPT]),
            ("whole step (peak)", sum(expected.values()), found["peak"], base["peak"]),
        ):
            rows.append({
                "recipe": recipe, "part": part, "formula (MB)": by_formula / 1e6,
                "measured (MB)": real / 1e6, "ratio": real / by_formula, "of fp32": real / full,
                "kind": "measured",
            })  # fmt: skip
    return rows


def parts_figure(batch_size: int, seq_len: int):
    """Measured bytes by part for each recipe."""
    found = {name: measured(name, batch_size, seq_len) for name in MEASURED}
    parts = [part for part in found["fp32"] if part != "peak"]
    series = {tr(part): [found[name][part] / 1e6 for name in MEASURED] for part in parts}
    totals = [sum(found[name][part] for part in parts) for name in MEASURED]
    names = [
        f"{tr_name(name)}<br>{total / 1e6:.0f} MB, x{total / totals[0]:.2f}"
        for name, total in zip(MEASURED, totals, strict=True)
    ]
    meta = {tr_name(n): round(t / totals[0], 3) for n, t in zip(MEASURED, totals, strict=True)}
    title = tr("One training step, {b} x {t} tokens (measured): of fp32", b=batch_size, t=seq_len)
    fig = figures.bars(names, series, title, "", tr("MB"), stacked=True, meta=meta)
    return fig.update_layout(legend=dict(orientation="h", y=-0.2, traceorder="normal"))


class Bf16(nn.Module):
    """A model whose weights and arithmetic are bf16, with logits in fp32, for the board."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.config, self.model = model.config, copy.deepcopy(model).bfloat16()

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B,T,V)."""
        return self.model(ids).float()


def parameter_rows() -> list[dict]:
    """Bytes a parameter, by recipe: what halves, what stays and what is added."""
    return [
        {
            "recipe": name,
            "weights": r.weights,
            "gradients": r.gradients,
            "master weights": r.master,
            "optimizer": r.optimizer,
            "16-bit copies": r.copies,
            "bytes a parameter": r.weights + r.gradients + r.master + r.optimizer + r.copies,
            "a value kept": r.values,
            "of the residual stream": r.residual,
            "kind": "computed",
        }
        for name, r in RECIPES.items()
    ]


def half_tokens(recipe: str, model: str = MODEL, seq_len: int = 256) -> float:
    """Tokens a step from which the whole step needs at most `HALF` of fp32's bytes (inf: never).

    With S bytes of state and a a token: S' + a' n = HALF (S + a n), solved for n.
    """
    config, full, mixed = PRESETS[model], RECIPES["fp32"], RECIPES[recipe]
    state = [sum(recipes.state_parts(config, r).values()) for r in (full, mixed)]
    token = [recipes.activation_bytes(config, seq_len, 1, r) / seq_len for r in (full, mixed)]
    slope = HALF * token[0] - token[1]
    return float("inf") if slope <= 0 else max(0.0, (state[1] - HALF * state[0]) / slope)


def memory_evidence(batch_size: int, seq_len: int) -> list[Evidence]:
    """What the verdict on half the memory rests on."""
    found = {name: measured(name, batch_size, seq_len) for name in ("fp32", *MIXED)}
    base = found["fp32"]

    def least(part: Callable[[dict], float]) -> float:
        return min(part(found[name]) for name in MIXED) / part(base)

    ratios = [f["peak"] / sum(formula(n, batch_size, seq_len).values()) for n, f in found.items()]
    shown = [
        Evidence(
            "whole",
            "whole training step, the leanest mixed recipe over fp32",
            100 * least(lambda f: f["peak"]),
            "%",
        ),
        Evidence(
            "batch",
            "what a batch adds, the leanest mixed recipe over fp32",
            100 * least(lambda f: f[KEPT]),
            "%",
        ),
        Evidence(
            "state",
            "model's state, the leanest mixed recipe over fp32",
            100 * least(state_bytes),
            "%",
        ),
        Evidence(
            "whole-autocast",
            "whole training step, autocast over fp32",
            100 * found["autocast"]["peak"] / base["peak"],
            "%",
        ),
        Evidence(
            "formula",
            "whole step, measured over formula, furthest from 1",
            max(ratios, key=lambda r: abs(r - 1)),
        ),
        Evidence(
            "published-batch",
            "batch that the published mixed runs used, at most",
            max(batch_gains()),
            "x",
            "published",
        ),
    ]
    tokens = min(half_tokens(name) for name in MIXED)
    return [
        *shown,
        Evidence(
            "tokens-halved",
            "tokens a step from which the whole counts as halved",
            tokens,
            "tokens",
            "computed",
        ),
    ]


def state_bytes(parts: dict) -> float:
    """What the model's size decides, of `measured` or `formula`."""
    return sum(v for k, v in parts.items() if k not in (KEPT, "peak"))
