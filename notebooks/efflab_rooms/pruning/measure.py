"""Notebook 11's numbers: what pruned models are like, and what the recorded schedules came to."""

import warnings
from functools import lru_cache
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, data, evaluate, points, pretrained, weights
from efflab.compression import pruning, sparse
from efflab.compression.packed import weight_matrices
from efflab.errors import require, require_int, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import lighten
from efflab.experiments import pruning_schedule as experiment
from efflab.experiments.record import expected_repeat, read_record, same_python
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

CONTROL = ("one-shot", 0.0)


def schedule_record() -> tuple[dict, dict]:
    """The recorded experiment, and its increases over the dense model by (schedule, ratio)."""
    record = read_record(experiment.NAME)
    return record, experiment.increases(record)


def schedule_rows() -> list[dict]:
    """Bits per byte above the dense model: untrained, after each round, and the seeds' range."""
    increases, rows = schedule_record()[1], []
    cases = [(schedule, ratio) for ratio in experiment.RATIOS for schedule in experiment.SCHEDULES]
    for schedule, ratio in [CONTROL, *cases]:
        bits = increases[schedule, ratio]
        row = {
            "removed in total (%)": 100 * ratio,
            "schedule": schedule if ratio else "control",
            "removed so far, by round (%)": " / ".join(f"{100 * r:.0f}" for r in bits["removed"]),
            "before training": bits["before"][0],
        }
        row |= {f"after round {i}": value for i, value in enumerate(bits["mean"], start=1)}
        row |= {"lowest over seeds": bits["low"][-1], "highest over seeds": bits["high"][-1]}
        rows.append(round_values(row))
    return rows


def recovery_rows() -> list[dict]:
    """One-shot: share of the lost quality that is back after each round, against the control (%).

    Then what is missing after the last round, in bits per byte: against the control, which was
    trained as long with nothing removed, and against the dense model; and what is back of that.
    """
    increases, rows = schedule_record()[1], []
    for ratio in experiment.RATIOS:
        bits, control = increases["one-shot", ratio], increases[CONTROL]["mean"]
        lost, last = bits["before"][0], bits["mean"][-1]
        gaps = [after - without for after, without in zip(bits["mean"], control, strict=True)]
        row = {"removed in total (%)": 100 * ratio, "lost before training (bits per byte)": lost}
        for i, gap in enumerate(gaps, start=1):
            row[f"recovered after round {i} (%)"] = round(100 * (1 - gap / lost))
        row |= {"above the control (bits per byte)": gaps[-1], "above dense (bits per byte)": last}
        row["recovered at the end, against dense (%)"] = round(100 * (1 - last / lost))
        rows.append(round_values(row))
    return rows


def round_values(row: dict) -> dict:
    """The row with three decimals."""
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}


def recovery(ratio: float) -> dict[str, dict[str, list[float]]]:
    """Schedule -> its recorded recovery: rounds trained, mean increase, lowest and highest seed.

    One-shot has a point more, early in the first round; "control" had nothing removed.
    """
    increases, lines = schedule_record()[1], {}
    keys = {name: (name, ratio) for name in experiment.SCHEDULES} | {"control": CONTROL}
    for name, key in keys.items():
        bits = increases[key]
        ends = {end: [bits["before"][0], *bits[end]] for end in ("mean", "low", "high")}
        lines[name] = {"rounds": list(range(len(ends["mean"])))} | ends
    early = mean(one_shot_early(ratio).values())
    for column, values in lines["one-shot"].items():
        values.insert(1, early_share() if column == "rounds" else early)
    return lines


def early_share() -> float:
    """The share of the first round after which a beginning is measured."""
    settings = schedule_record()[0]["settings"]
    return settings["early"] / settings["steps_per_round"]


def one_shot_early(ratio: float) -> dict[int, float]:
    """Seed -> one-shot's recorded increase over dense early in its first round."""
    record = read_record(experiment.NAME)
    runs = [r for r in record["runs"] if (r["schedule"], r["ratio"]) == ("one-shot", ratio)]
    return {r["seed"]: r["early"] - record["settings"]["dense"] for r in runs}


def repeat_one_shot(ratio: float, seed: int = 0) -> tuple[float, float, float | None]:
    """One-shot's beginning anew: its increase now, the recorded one, their allowed distance.

    That follows `record.expected_repeat`'s rule. Another Python has other library text and another
    checkpoint other weights: nothing can be compared there, and the last is None.
    """
    require_one_of("ratio", ratio, experiment.RATIOS)
    require_int("seed", seed, 0)
    record, model = read_record(experiment.NAME), points.language_model()
    increase = experiment.early(model, ratio, seed) - experiment.bits(model)
    reference, spread = expected_repeat(one_shot_early(ratio), seed)
    is_same_model = pretrained.read_card()["sha256"].startswith(record["models"]["stdlib-gpt"])
    is_comparable = is_same_model and same_python(record)
    return increase, reference, spread if is_comparable else None
