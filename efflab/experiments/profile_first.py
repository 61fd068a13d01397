"""Whether the part of a forward pass that takes longest by PyTorch Profiler is the one to change
first, against a count of FLOPs as rival: what `profile-first.choice` rests on.

A decoder as its formulas are written gives the next token of a random text. Each of four changes
addresses one part: attention by the fused kernel, the layers' products by INT8, norms and
activations by torch's own kernels, the head by logits of the last token alone. What each costs in
quality is measured in each run on `stdlib-gpt`. Either rival changes the part that is largest to
it, then the next largest by a new profile, or by the same count; no part is changed twice. Each
case has a process and random weights of its own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy
from itertools import product
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, cost, points, profile
from efflab.acceleration import block
from efflab.base.busy import others
from efflab.bench import one_thread
from efflab.compression.engines import torch_dynamic_int8
from efflab.config import ModelConfig
from efflab.errors import require_one_of
from efflab.estimate import Estimate, of_mean
from efflab.experiments.case_study_latency import alone
from efflab.experiments.int8_latency import require_idle
from efflab.experiments.record import by_seed, round_floats, run_cases
from efflab.experiments.registration import rules_for
from efflab.experiments.training import held_out_bits
from efflab.model import Attention, Transformer
from efflab.pretrained import read_card
from efflab.tensors import Heads, Hidden, Ids

NAME = "profile-first"
WIDTHS, LENGTHS, SEEDS = (128, 192, 384, 512, 768), (128, 1024), tuple(range(260, 265))
N_LAYER, HEAD_DIM, VOCAB = 4, 64, 16384
"""With as large a share of head as GPT-2, of 12 layers and 50,257 tokens in the vocabulary."""
PARTS = ("attention", "products", "elementwise", "head")
REPEATS, WARMUP, N_PROFILES, N_WINDOWS, WINDOW = 9, 2, 3, 32, 128


# --- The model, and what changes it -------------------------------------------------------------


class ByFormula(nn.Module):
    """softmax(Q K^T / sqrt(D)) V of a causal model, an operation at a time."""

    def forward(self, q: Heads, k: Heads, v: Heads) -> Tensor:
        scores = q @ k.mT * q.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        return block.softmax(block.torch_namespace(), scores.masked_fill(later, -torch.inf)) @ v


class Fused(nn.Module):
    """The same by the fused kernel, which leaves out what is masked."""

    def forward(self, q: Heads, k: Heads, v: Heads) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class AttentionBy(nn.Module):
    """`Attention` whose middle is a module of its own, which a profile can tell apart."""

    def __init__(self, attention: Attention, middle: nn.Module):
        super().__init__()
        self.attention, self.middle = attention, middle

    def forward(self, x: Hidden, mask: None = None) -> Tensor:
        y = self.middle(*self.attention.heads(x))
        return self.attention.out(y.transpose(1, 2).flatten(2))


class NormByFormula(nn.LayerNorm):
    """LayerNorm, an operation at a time."""

    def forward(self, x: Hidden) -> Tensor:
        return block.layer_norm(block.torch_namespace(), x, self.weight, self.bias, self.eps)


class GeluByFormula(nn.Module):
    """GELU, an operation at a time."""

    def forward(self, x: Tensor) -> Tensor:
        return block.gelu(block.torch_namespace(), x)


class NextToken(nn.Module):
    """Logits (B,1,V) of the last token; unless `only_last`, those of all tokens come first."""

    def __init__(self, model: Transformer, only_last: bool):
        super().__init__()
        self.model, self.only_last = model, only_last

    def forward(self, ids: Ids) -> Tensor:
        x = self.model.encode(ids)
        return self.model.embedding.logits(x[:, -1:] if self.only_last else x)[:, -1:]


def make(model: Transformer, changes: Collection[str] = ()) -> NextToken:
    """A copy of a causal model as its formulas are written, with these of `PARTS` changed."""
    for change in changes:
        require_one_of("changes", change, PARTS)
    net = deepcopy(model)
    middle = Fused() if "attention" in changes else ByFormula()
    replace(net, Attention, lambda attention: AttentionBy(attention, middle))
    if "elementwise" not in changes:
        replace(net, nn.GELU, lambda gelu: GeluByFormula())
        replace(net, nn.LayerNorm, norm_by_formula)
    if "products" in changes:
        net = torch_dynamic_int8(net, per_channel=True)
    return NextToken(net, "head" in changes).eval()


def norm_by_formula(norm: nn.LayerNorm) -> NormByFormula:
    """The same norm, an operation at a time."""
    other = NormByFormula(norm.normalized_shape, norm.eps)
    other.weight, other.bias = norm.weight, norm.bias
    return other


def replace(model: nn.Module, kind: type, make_other: Callable[[nn.Module], nn.Module]) -> None:
    """Put `make_other(module)` in the place of every module of that kind."""
    children = [(p, name, child) for p in model.modules() for name, child in p.named_children()]
    for parent, name, child in children:
        if isinstance(child, kind):
            setattr(parent, name, make_other(child))


def config(width: int, n_tokens: int) -> ModelConfig:
    """A decoder of that width for texts of so many tokens."""
    sizes = (N_LAYER, width // HEAD_DIM, width, 4 * width, VOCAB, n_tokens)
    return ModelConfig(*sizes, causal=True)


# --- Two ways to choose ----------------------------------------------------------------------


def flop_shares(config: ModelConfig, n_tokens: int) -> dict[str, float]:
    """Shares (0..1) of `PARTS` in a pass's FLOPs, as formulas count them: products only."""
    flops = cost.flops_by_part(config, n_tokens)
    counts = dict(attention=flops["scores"], products=flops["projections"] + flops["ffn"])
    counts |= dict(elementwise=0, head=flops["logits"])
    return {part: count / sum(counts.values()) for part, count in counts.items()}


@torch.no_grad()
def time_shares(net: NextToken, ids: Ids) -> dict[str, float]:
    """Shares (0..1) of `PARTS` in a pass's time by PyTorch Profiler, medians of `N_PROFILES`.

    Sums of branches, lookups and whatever else is no product count as elementwise.
    """
    kinds = dict(attention=(ByFormula, Fused), elementwise=(nn.LayerNorm, nn.GELU, GeluByFormula))
    kinds |= dict(products=(nn.Linear, torch.ao.nn.quantized.dynamic.Linear))
    modules = {p: [m for m in net.modules() if isinstance(m, kind)] for p, kind in kinds.items()}
    net(ids)
    shares = []
    for _ in range(N_PROFILES):
        seconds = dict.fromkeys(PARTS, 0.0)
        for span in profile.profile(lambda: net(ids), modules).spans:
            rest = "head" if "mm" in span.name else "elementwise"
            seconds[rest if span.part == "other" else span.part] += span.seconds
        shares.append({part: s / sum(seconds.values()) for part, s in seconds.items()})
    return {part: median(share[part] for share in shares) for part in PARTS}


def largest(shares: Mapping[str, float], without: Collection[str] = ()) -> str:
    """The part with the largest share."""
    return max((part for part in PARTS if part not in without), key=shares.__getitem__)


# --- A run -------------------------------------------------------------------------------------


def bits_lost(seed: int) -> dict[str, float]:
    """Bits per byte that `stdlib-gpt` loses by each change on random held-out windows.

    The head's change leaves the last token's logits as they are, and so the model.
    """

    def bits(*changes: str) -> float:
        return held_out_bits(make(points.language_model(), changes).model, N_WINDOWS, WINDOW, seed)

    plain = bits()
    return {part: bits(part) - plain for part in PARTS}


@one_thread()
def measure(width: int, n_tokens: int, seed: int, repeats: int = REPEATS) -> dict:
    """What the profile and the count choose in two rounds, and the times after each change.

    `shares`: of `PARTS` in time; `flops`: in FLOPs; `first` and `both`: the parts changed by the
    profile and by the count after one round and after two. `time`: over the unchanged model's after
    each change; `rival` and `rival_twice`: after the profile's changes over after the count's;
    `again`: the unchanged model's second run over its first. Medians of paired repeats.
    """
    shape = config(width, n_tokens)
    torch.manual_seed(seed)
    model, ids = Transformer(shape), torch.randint(VOCAB, (1, n_tokens))
    plain, nets = make(model), {(part,): make(model, [part]) for part in PARTS}
    shares, flops = time_shares(plain, ids), flop_shares(shape, n_tokens)
    by_profile, by_count = largest(shares), largest(flops)
    then = largest(time_shares(nets[by_profile,], ids), [by_profile])
    both = [tuple(sorted(p)) for p in ((by_profile, then), (by_count, largest(flops, [by_count])))]
    nets |= {changes: make(model, changes) for changes in both}
    calls = {key: lambda net=net: net(ids) for key, net in nets.items()}
    with torch.no_grad():
        times = bench.compare(lambda: plain(ids), calls, WARMUP, repeats)
    after = times.timings
    row = dict(shares=shares, flops=flops, time={p: times.ratios[p,].mean for p in PARTS})
    row |= dict(rival=after[by_profile,].ratio(after[by_count,]))
    row |= dict(rival_twice=after[both[0]].ratio(after[both[1]]), again=times.again.mean)
    row |= dict(lost=bits_lost(seed * 10**4 + width + n_tokens), busy_cores=others.cores)
    choices = dict(profile=by_profile, count=by_count)
    pairs = dict(zip(choices, map("+".join, both), strict=True))
    return round_floats(row) | dict(first=choices, both=pairs)


def run_one(width: int, n_tokens: int, seed: int) -> dict:
    """Run one case in a separate process; a machine that was busy meanwhile is refused."""
    row = alone(f"{__name__}:measure", dict(width=width, n_tokens=n_tokens, seed=seed))
    require_idle(row["busy_cores"])
    return row


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every shape with every seed; recorded as data/experiments/profile-first."""
    each = [dict(width=w, n_tokens=n, seed=s) for n, w, s in product(LENGTHS, WIDTHS, SEEDS)]
    own = dict(n_changes=len(PARTS), n_layer=N_LAYER, vocab_size=VOCAB, repeats=REPEATS)
    own |= dict(warmup=WARMUP, n_profiles=N_PROFILES, n_windows=N_WINDOWS, window=WINDOW)
    options = dict(models={"stdlib-gpt": read_card()["sha256"]}, rules=rules_for(NAME), fresh=fresh)
    return run_cases(NAME, each, run_one, settings=own, **options)


# --- What it comes to ------------------------------------------------------------------------


def shape_name(run: Mapping) -> str:
    """Such as "192-1024": width and tokens."""
    return f"{run['width']}-{run['n_tokens']}"


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """{"rival-192-128": time after the profile's choice over after the count's, "twice-192-128":
    after two rounds, and what `over_shapes` has}: means and intervals over seeds, those of a shape
    widened by the A/A noise.
    """
    runs, estimates = [run | dict(shape=shape_name(run)) for run in runs], {}
    for shape, again in by_seed(runs, "shape", "again").items():
        band = of_mean(again).band
        for key, value in (("rival", "rival"), ("twice", "rival_twice")):
            ratio = of_mean(by_seed(runs, "shape", value)[shape])
            estimates[f"{key}-{shape}"] = ratio.with_noise(band)
    return estimates | over_shapes(runs)


def over_shapes(runs: list[dict]) -> dict[str, Estimate]:
    """What all shapes of a seed come to, with intervals over seeds.

    `quality-difference`: of the change that loses most bits per byte, either way; `differ`: in how
    many shapes the two choose otherwise; the rest are geometric means over shapes. `spread`: the
    best change's time over the worst one's; `best-profile` and `best-count`: the time after that
    choice over the best change's; `twice`: `rival_twice`.
    """
    groups = [[run for run in runs if run["seed"] == s] for s in sorted({r["seed"] for r in runs})]

    def average(value: Callable[[dict], float]) -> Estimate:
        return of_mean([float(np.mean([value(run) for run in group])) for group in groups])

    def ratio(value: Callable[[dict], float]) -> Estimate:
        means = [np.mean([np.log(value(run)) for run in group]) for group in groups]
        return of_mean([float(np.exp(mean)) for mean in means])

    lost = [average(lambda run, part=part: run["lost"][part]) for part in PARTS]
    differ = [sum(len(set(run["first"].values())) > 1 for run in group) for group in groups]
    return {
        "best-profile": ratio(lambda run: run["time"][run["first"]["profile"]] / fastest(run)),
        "best-count": ratio(lambda run: run["time"][run["first"]["count"]] / fastest(run)),
        "quality-difference": max(lost, key=lambda bits: abs(bits.mean)),
        "differ": of_mean(differ),
        "spread": ratio(lambda run: fastest(run) / max(run["time"].values())),
        "twice": ratio(lambda run: run["rival_twice"]),
    }


def fastest(run: Mapping) -> float:
    """The time after the best change, over the unchanged model's."""
    return min(run["time"].values())
