"""Notebook 01's numbers: what sharing removes and leaves, and what the recorded runs came to."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from efflab import bench, cost, layers, points, train, weights
from efflab.config import PRESETS, SHARING, ModelConfig
from efflab.errors import require_int, require_one_of
from efflab.experiments import encoder_tasks, qkv_sharing
from efflab.experiments.record import expected_repeat, read_record, same_python
from efflab.model import Transformer, n_parameters

# --- Counts ----------------------------------------------------------------------------------

STRATEGIES = {
    "not-shared": "none",
    "shared-attention": "attention",
    "shared-ffn": "ffn",
    "all-shared": "all",
}
COSTS = {
    "parameters": cost.num_params,
    "training states": lambda c: cost.model_state_bytes(cost.num_params(c), 1, 0),
    "activations": lambda c: cost.activation_bytes(c, 128, 8),
    "forward FLOPs": lambda c: cost.forward_flops(c, 128, 8),
}
"""What a config costs; activations and FLOPs at 8 texts of 128 tokens."""


def albert_config(row: Mapping) -> ModelConfig:
    """The model of a row of data/published/albert.csv.

    Unshared ones leave the pooler out, as the paper's do.
    """
    share, d_model = STRATEGIES[row["strategy"]], row["hidden"]
    shape = dict(n_layer=row["layers"], d_model=d_model, n_head=d_model // 64, d_ff=4 * d_model)
    shape |= dict(d_embed=row["embedding"], share=share, pooler=share != "none")
    return replace(PRESETS["albert-base"], **shape)


def parts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part; the parts add up to `cost.num_params`."""
    n_attention = 1 if config.share in ("attention", "all") else config.n_layer
    n_ffn = 1 if config.share in ("ffn", "all") else config.n_layer
    counts = {
        "embedding": layers.embedding_params(config),
        "attention": n_attention * layers.attention_params(config),
        "feed-forward": n_ffn * layers.ffn_params(config),
    }
    return counts | {"pooler": cost.num_params(config) - sum(counts.values())}


def saving(config: ModelConfig, share: str = "all") -> float:
    """The part of the unshared model's parameters that `share` removes, 0 to 1."""
    require_one_of("share", share, SHARING)
    before, after = (cost.num_params(replace(config, share=s)) for s in ("none", share))
    return 1 - after / before


def albert_pairs() -> dict[str, tuple[ModelConfig, ModelConfig]]:
    """Model -> its config with no layer shared and with all: ALBERT's sizes, BERT-base, MiniLM.

    Each keeps its own embedding, ALBERT's 128 wide, so that they differ by sharing alone.
    """
    names = {f"albert-{size}": f"albert-{size}" for size in ("base", "large", "xlarge", "xxlarge")}
    names |= {"bert-base": "bert-base", "minilm": "minilm-l6"}
    return {
        key: tuple(replace(PRESETS[name], share=share) for share in ("none", "all"))
        for key, name in names.items()
    }


def reuse_costs(n_tasks: int, n_classes: int = 8, every_text: bool = True) -> dict[str, tuple]:
    """(one encoder, an encoder a task): fp32 megabytes, and GFLOP for one text of 32 tokens.

    `every_text`: each text is wanted by all tasks; otherwise by one of them.
    """
    require_int("n_tasks", n_tasks)
    require_int("n_classes", n_classes, 2)
    config = PRESETS["minilm-l6"]
    encoder, head = cost.num_params(config), (config.d_model + 1) * n_classes
    flops = cost.flops_by_part(config, 32)
    encoder_flops, head_flops = sum(flops.values()) - flops["logits"], 2 * (head - n_classes)
    n_uses = n_tasks if every_text else 1
    return {
        "memory": tuple(4e-6 * (n * encoder + n_tasks * head) for n in (1, n_tasks)),
        "compute": tuple(1e-9 * (n * encoder_flops + n_uses * head_flops) for n in (1, n_uses)),
    }


# --- What sharing leaves of each cost --------------------------------------------------------


def state_bytes(model: nn.Module, ids: Tensor) -> int:
    """Bytes of weights, gradients and AdamW's two moments, counted after one real step."""
    (optimizer,) = train.adamw(model, 1e-3)
    train.language_model_loss(model, ids, ids).backward()
    optimizer.step()
    tensors = [t for state in optimizer.state.values() for t in state.values()]
    tensors += [t for p in model.parameters() for t in (p, p.grad)]
    total = sum(t.nbytes for t in tensors)
    model.zero_grad(set_to_none=True)
    return total


def compare_times(
    models: Mapping[str, Transformer], ids: Tensor, repeats: int = 5
) -> dict[str, bench.Comparison]:
    """Times of a forward pass and a training step on ids (B,T), beside those of "none"."""
    optimizers = {name: train.adamw(model, 1e-5)[0] for name, model in models.items()}

    @torch.no_grad()
    def forward(name):
        models[name](ids)

    def step(name):
        train.language_model_loss(models[name], ids, ids).backward()
        optimizers[name].step()
        optimizers[name].zero_grad()

    times = {}
    for what, fn in (("forward pass (ms)", forward), ("training step (ms)", step)):
        calls = {name: partial(fn, name) for name in models if name != "none"}
        times[what] = bench.compare(partial(fn, "none"), calls, warmup=1, repeats=repeats)
    return times


def cost_rows(
    models: Mapping[str, Transformer], ids: Tensor, times: Mapping[str, bench.Comparison]
) -> list[dict]:
    """A row for each cost at ids (B,T), a column for each model, and "all" over "none"."""
    B, T = ids.shape
    exact = {
        "parameters (M)": lambda m: n_parameters(m) / 1e6,
        "checkpoint (MB)": lambda m: len(weights.to_bytes(weights.named_tensors(m))) / 1e6,
        "weights, gradients, AdamW (MB)": lambda m: state_bytes(m, ids) / 1e6,
        "activations kept (MB)": lambda m: bench.saved_bytes(m, ids) / 1e6,
        "forward GFLOP": lambda m: cost.forward_flops(m.config, T, B) / 1e9,
    }
    rows = []
    for name, count in exact.items():
        row = {"cost": name} | {share: count(model) for share, model in models.items()}
        row |= {"all / none": row["all"] / row["none"], "interval, low": None}
        row |= {"interval, high": None, "A/A band (±%)": None}
        rows.append(row | {"kind": "computed" if name == "forward GFLOP" else "measured"})
    for name, times_of in times.items():
        timings, ratio = times_of.timings, times_of.ratios["all"]
        timings = timings | {"none": timings["baseline"]}
        row = {"cost": name} | {share: 1e3 * timings[share].median for share in models}
        row |= {"all / none": ratio.mean, "interval, low": ratio.low}
        row |= {"interval, high": ratio.high, "A/A band (±%)": 100 * times_of.band}
        rows.append(row | {"kind": "measured"})
    return rows


# --- QKV shared by the first n layers --------------------------------------------------------


def qkv_record() -> tuple[dict, dict[int, dict]]:
    """The recorded experiment and its summary by number of sharing layers."""
    record = read_record(qkv_sharing.NAME)
    return record, qkv_sharing.by_count(record["runs"])


def repeat_qkv(n_shared: int, seed: int = 0) -> tuple[float, float, float | None]:
    """A recorded run's beginning anew: its loss now, the recorded one, their allowed distance.

    In nats; the distance follows `record.expected_repeat`'s rule. Another Python has another
    library: nothing can be compared there, and the last is None.
    """
    record, summary = qkv_record()
    require_one_of("n_shared", n_shared, summary)
    by_seed = {r["seed"]: r["early"] for r in record["runs"] if r["n_shared"] == n_shared}
    loss = qkv_sharing.validation_loss(n_shared, seed, qkv_sharing.EARLY)
    reference, spread = expected_repeat(by_seed, seed)
    return loss, reference, spread if same_python(record) else None


# --- One encoder, many tasks -----------------------------------------------------------------


def compare_reuse(
    n_classes: Sequence[int] = (64, 2, 2), repeats: int = 7
) -> tuple[dict[str, float], dict[str, bench.Timing]]:
    """Megabytes of weights, and time for 8 texts that every task wants; a task has `n_classes`.

    "one" encoder for all tasks, or "each" task its own.
    """
    encoder, tokenizer = points.encoder()
    ids = encoder_tasks.token_ids(tokenizer, encoder_tasks.docstrings().texts[:8])
    heads = [nn.Linear(encoder.config.d_model, n) for n in n_classes]
    encoders = [encoder, *(deepcopy(encoder) for _ in n_classes[1:])]

    @torch.no_grad()
    def one():
        x = encoder_tasks.sentences(encoder, ids)
        return [head(x) for head in heads]

    @torch.no_grad()
    def each():
        pairs = zip(encoders, heads, strict=True)
        return [head(encoder_tasks.sentences(own, ids)) for own, head in pairs]

    times = bench.time_interleaved({"one": one, "each": each}, warmup=1, repeats=repeats)
    groups = {"one": [encoder, *heads], "each": [*encoders, *heads]}
    memory = {name: sum(map(points.weight_bytes, group)) / 1e6 for name, group in groups.items()}
    return memory, times
