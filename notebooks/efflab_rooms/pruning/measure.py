"""Notebook 11's numbers: what pruned models are like, and what the recorded schedules came to."""

import warnings
from functools import lru_cache
from itertools import accumulate, product
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, data, evaluate, points, pretrained, weights
from efflab.compression import pruning, sparse
from efflab.compression.packed import weight_matrices
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import lighten
from efflab.experiments import pruning_recovery as experiment
from efflab.experiments.record import read_record, same_python
from efflab.model import Transformer

KINDS = ("weights", "n of 4 weights", "heads", "FFN neurons")

# --- stdlib-gpt, pruned four ways ------------------------------------------------------------


@lru_cache(maxsize=2)
def importance(kind: str) -> Tensor:
    """Importance of `stdlib-gpt`'s heads (6, 6) or FFN neurons (6, 768) on training text."""
    require_one_of("kind", kind, KINDS[2:])
    gradients = pruning.head_importance if kind == "heads" else pruning.neuron_importance
    return gradients(points.language_model(), training_batches())


def training_batches() -> list[tuple[Tensor, Tensor]]:
    """Two batches of training text on which importance is judged, 8 windows of 128 tokens each."""
    stream = data.stdlib_tokens("train")
    return [data.random_windows(stream, 8, 128, seed) for seed in range(2)]


@lru_cache(maxsize=1)
def ablation() -> Tensor:
    """How much the loss on the same batches rises without each head alone, in nats: (6, 6)."""
    config = points.language_model().config
    layers, heads = range(config.n_layer), range(config.n_head)
    ablated = [[loss_without({i: [h]}) for h in heads] for i in layers]
    return torch.tensor(ablated) - loss_without({})


def loss_without(heads: pruning.Units) -> float:
    """The loss on the same batches without these heads, in nats."""
    model = pruning.prune_heads(points.language_model(), heads)
    return mean(lighten.loss(model, batch) for batch in training_batches())


def prune(kind: str, ratio: float, scores: Tensor | None = None) -> Transformer:
    """A copy of `stdlib-gpt` without the share `ratio` of that kind, not trained again.

    Weights are masked, heads and neurons removed; "n of 4 weights" takes the nearest n. `scores`
    replace the importance of heads or neurons.
    """
    require_one_of("kind", kind, KINDS)
    require(0 <= ratio <= 1, "ratio", ratio, "a share from {low} to {high}", low=0, high=1)
    model = points.language_model()
    if kind in KINDS[2:]:
        units = pruning.least_important(importance(kind) if scores is None else scores, ratio)
        remove = pruning.prune_heads if kind == "heads" else pruning.prune_ffn
        return remove(model, units)

    def mask(weight: Tensor) -> Tensor:
        if kind == "weights":
            return pruning.magnitude_mask(weight, ratio)
        return pruning.n_m_mask(weight, 4 - round(4 * ratio), 4)

    return pruning.apply_masks(model, pruning.weight_masks(model, mask))


def quality(model: nn.Module) -> Estimate:
    """Bits per byte, judged on 16 held-out windows of 128 tokens beside the unchanged model."""
    return points.language_quality(model, n_windows=16, seq_len=128)


def model_bytes(model: nn.Module, layout: str = "dense") -> int:
    """fp32 bytes of all tensors; each matrix in `layout`, or dense where that is smaller."""
    saved = 0
    if layout != "dense":
        matrices = weight_matrices(model).values()
        saved = sum(max(0, w.nbytes - sparse.layout_bytes(w, layout)) for w in matrices)
    return sum(t.nbytes for t in weights.named_tensors(model).values()) - saved


@lru_cache(maxsize=64)
def quality_and_costs(kind: str, percent: float) -> tuple[Estimate, dict[str, float]]:
    """`stdlib-gpt` so pruned: its bits per byte, and its costs over the whole model's."""
    whole, model = points.language_model(), prune(kind, percent / 100)
    ids = torch.zeros(1, 128, dtype=torch.long)
    with torch.no_grad():
        times = bench.compare(lambda: whole(ids), {"pruned": lambda: model(ids)}, warmup=1)
    return quality(model), {
        "bytes, dense": model_bytes(model) / model_bytes(whole),
        "bytes, zeros left out": model_bytes(model, "bitmap") / model_bytes(whole),
        "FLOPs": pruning.forward_flops(model, 128) / pruning.forward_flops(whole, 128),
        "time (measured)": times.ratios["pruned"].mean,
    }


# --- Time ------------------------------------------------------------------------------------


HEADS_OFF = (25, 50, 75)
"""Shares of the heads in per cent that are removed where heads alone are."""


def models_to_time(share: float) -> dict[str, Transformer]:
    """`stdlib-gpt` pruned in several ways, by name; `share` of the heads where no number stands."""
    whole = points.language_model()
    heads = pruning.least_important(importance("heads"), share)
    neurons = pruning.least_important(importance("FFN neurons"), 0.5)
    headless = pruning.prune_heads(whole, heads)
    return {
        "90% of the weights, masked": prune("weights", 0.9),
        "2:4, masked": prune("n of 4 weights", 0.5),
        "heads, masked": pruning.apply_masks(whole, pruning.head_masks(whole, heads)),
        **{f"{n}% of the heads, removed": prune("heads", n / 100) for n in HEADS_OFF},
        "half of the FFN neurons, removed": pruning.prune_ffn(whole, neurons),
        "heads and FFN neurons, removed": pruning.prune_ffn(headless, neurons),
    }


@torch.no_grad()
def compare_models(models: dict, seq_len: int, repeats: int = 25) -> bench.Comparison:
    """A pass over `seq_len` tokens through each of `models`, beside the whole `stdlib-gpt`."""
    whole, ids = points.language_model(), torch.zeros(1, seq_len, dtype=torch.long)
    calls = {name: lambda model=model: model(ids) for name, model in models.items()}
    return bench.compare(lambda: whole(ids), calls, warmup=1, repeats=repeats)


def compare_products(
    ratios=(0.5, 0.8, 0.9, 0.99), size: int = 1024, repeats: int = 15
) -> dict[float, dict[str, Estimate]]:
    """Time of a matrix product with zeros, over the same product without: by share of zeros.

    For each share, of the kernel that multiplies the zeros ("dense") and of the one that leaves
    them out ("CSR"). The product is size x size by size x 256.
    """
    rng = torch.Generator().manual_seed(0)
    weight, x = torch.randn(size, size, generator=rng), torch.randn(size, 256, generator=rng)
    times = {}
    for ratio in ratios:
        masked = weight * pruning.magnitude_mask(weight, ratio)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls its CSR support a beta
            csr = masked.to_sparse_csr()
        calls = {"dense": lambda w=masked: w @ x, "CSR": lambda w=csr: w @ x}
        times[ratio] = bench.compare(lambda: weight @ x, calls, warmup=1, repeats=repeats).ratios
    return times


# --- MiniLM without some of its heads --------------------------------------------------------

N_EXAMPLES = 16


def token_ids(strings: list[str]) -> Tensor:
    """Ids (N,64) of texts, filled with 0."""
    options = dict(padding="max_length", truncation=True, max_length=points.MAX_TOKENS)
    return points.encoder()[1](strings, return_tensors="pt", **options)["input_ids"]


def retrieval_loss(model: Transformer, queries: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy in nats of finding each docstring's code among the batch's, cosines x 20."""
    a, b = (pretrained.mean_pool(model.encode(x, x != 0), x != 0) for x in (queries, codes))
    return F.cross_entropy(20 * a @ b.T, torch.arange(len(a)))


@lru_cache(maxsize=1)
def minilm_importance() -> Tensor:
    """Importance (6, 12) of MiniLM's heads for retrieval, on functions not used for judging."""
    functions = data.documented_functions()
    step = max(1, len(functions) // points.N_FUNCTIONS)
    examples = functions[step // 2 :: step][:N_EXAMPLES]
    batch = token_ids([f.query for f in examples]), token_ids([f.code for f in examples])
    return pruning.head_importance(points.encoder()[0], [batch], retrieval_loss)


def prune_minilm(share: float) -> Transformer:
    """A copy of MiniLM without a share of its heads, those that retrieval needs least."""
    heads = pruning.least_important(minilm_importance(), share)
    return pruning.prune_heads(points.encoder()[0], heads)


def minilm_cosines(model: Transformer) -> dict[str, float]:
    """Cosines of a changed MiniLM's embeddings to the whole one's: `mean`, `p5` and `min`."""
    whole, tokenizer = points.encoder()
    functions = data.documented_functions()
    step = max(2, len(functions) // points.N_FUNCTIONS)
    queries = [f.query for f in functions[1::step]][: 2 * N_EXAMPLES]  # none that importance saw
    embeddings = (
        pretrained.embed(m, tokenizer, queries, max_len=points.MAX_TOKENS) for m in (whole, model)
    )
    return evaluate.cosines(*embeddings)


# --- The recorded schedules ------------------------------------------------------------------

SCHEDULES = ("one-shot", "gradual")
ROUNDING = 1e-3  # bits per byte by which two processors may differ


def runs_of(schedule: str, ratio: float) -> list[dict]:
    """The recorded runs of a schedule and a share removed, in the order of their seeds."""
    point, runs = (schedule, ratio), recovery_record()["runs"]
    runs = [run for run in runs if (run["schedule"], run["ratio"]) == point]
    return sorted(runs, key=lambda run: run["seed"])


def recovery_record() -> dict:
    """The recorded runs of pruning at once and step by step, with the same training."""
    return read_record(experiment.NAME)


def recovery(schedule: str, ratio: float) -> dict[str, list[float]]:
    """The recorded course of a training: "steps" done, and bits per byte above the dense model.

    Their "mean", "low" and "high" over the seeds, where each part begins and where it ends.
    """
    runs = runs_of(schedule, ratio)
    parts = list(zip(*(run["parts"] for run in runs), strict=True))
    ends = list(accumulate(rows[0]["steps"] for rows in parts))
    line = dict(steps=[0, *(n for end in ends for n in (end, end))][:-1], mean=[], low=[], high=[])
    for rows, moment in product(parts, ("before", "after")):
        levels = [row[moment] - run["dense"] for row, run in zip(rows, runs, strict=True)]
        for name, over_seeds in (("mean", mean), ("low", min), ("high", max)):
            line[name].append(over_seeds(levels))
    return line


def after_rounds(schedule: str, ratio: float) -> list[float]:
    """Bits per byte above the dense model after each round of training, mean over the seeds."""
    line = recovery(schedule, ratio)
    by_step = dict(zip(line["steps"][1::2], line["mean"][1::2], strict=True))
    rounds = range(1, experiment.N_ROUNDS + 1)
    return [by_step[i * experiment.STEPS_PER_ROUND] for i in rounds]


def schedule_rows() -> list[dict]:
    """The largest drop, bits per byte above the dense model after each round, the seeds' range."""
    rows = []
    for schedule, ratio in experiment.POINTS:
        line = recovery(schedule, ratio)
        row = {
            "removed in total (%)": 100 * ratio,
            "schedule": schedule if ratio else "control",
            "largest single drop": mean(run["drop"] for run in runs_of(schedule, ratio)),
        }
        row |= {f"after round {i}": v for i, v in enumerate(after_rounds(schedule, ratio), start=1)}
        row |= {"lowest seed, after round 3": line["low"][-1]}
        row |= {"highest seed, after round 3": line["high"][-1]}
        rows.append(round_values(row))
    return rows


def recovery_rows() -> list[dict]:
    """One-shot: share of the lost quality that is back after each round, against the control (%).

    Then what is missing after the last round, in bits per byte: against the control, which was
    trained as long with nothing removed, and against the dense model; and what is back of that.
    """
    rows, control = [], after_rounds(*experiment.CONTROL)
    for ratio in (experiment.EASY[1], *experiment.RATIOS):
        lost, above_dense = runs_of("one-shot", ratio)[0]["drop"], after_rounds("one-shot", ratio)
        gaps = [after - without for after, without in zip(above_dense, control, strict=True)]
        row = {"removed in total (%)": 100 * ratio, "lost before training (bits per byte)": lost}
        for i, gap in enumerate(gaps, start=1):
            row[f"recovered after round {i} (%)"] = round(100 * (1 - gap / lost))
        last = above_dense[-1]
        row |= {"above the control (bits per byte)": gaps[-1], "above dense (bits per byte)": last}
        row["recovered at the end, against dense (%)"] = round(100 * (1 - last / lost))
        rows.append(round_values(row))
    return rows


def round_values(row: dict) -> dict:
    """The row with three decimals."""
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}


def repeat_drop(ratio: float) -> tuple[float, float, float | None]:
    """Pruning at once anew: what it costs here before training, the record, their allowed distance.

    Nothing in it is drawn, so another processor's rounding alone may tell them apart. Another
    Python has other library text and another checkpoint other weights: nothing can be compared
    there, and the last is None.
    """
    require_one_of("ratio", ratio, experiment.RATIOS)
    record, whole = recovery_record(), experiment.bits(points.language_model())[0]
    live = experiment.bits(prune("weights", ratio))[0] - whole
    is_same_model = pretrained.read_card()["sha256"].startswith(record["models"]["stdlib-gpt"])
    is_comparable = is_same_model and same_python(record)
    return live, runs_of("one-shot", ratio)[0]["drop"], ROUNDING if is_comparable else None
