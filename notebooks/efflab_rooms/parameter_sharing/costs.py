"""Notebook 01's measurements: what sharing saves and does not, and QKV by depth."""

import torch
from torch import nn

from efflab import bench, cost, points, pretrained, train, weights
from efflab.config import SHARING, ModelConfig
from efflab.errors import require_one_of
from efflab.estimate import Estimate
from efflab.experiments import dynamic_attention, qkv_sharing
from efflab.experiments.record import agrees, expected, recorded, same_python
from efflab.lab import colours, figures, tr
from efflab.model import Transformer, n_parameters
from efflab.structure.sharing import from_albert, share_layers, share_qkv

MB = 1e6


# --- ALBERT ----------------------------------------------------------------------------------


def albert_gap(seed: int = 0) -> dict[str, float]:
    """Our model with the weights of a small random `transformers.AlbertModel`, against it."""
    library = pretrained.transformers()
    torch.manual_seed(seed)
    shape = dict(vocab_size=1000, embedding_size=32, hidden_size=128, intermediate_size=512)
    theirs = library.AlbertModel(
        library.AlbertConfig(**shape, num_hidden_layers=6, num_attention_heads=4)
    ).eval()
    ours, ids = from_albert(theirs), torch.randint(0, 1000, (2, 32))
    with torch.no_grad():
        gap = (ours.encode(ids) - theirs(ids).last_hidden_state).abs().max().item()
    return {"theirs": theirs.num_parameters(), "ours": n_parameters(ours), "largest gap": gap}


def modes(config: ModelConfig, seed: int = 0) -> dict[str, Transformer]:
    """One model under each kind of sharing, all from the same random weights."""
    torch.manual_seed(seed)
    model = Transformer(config)
    return {share: model if share == "none" else share_layers(model, share) for share in SHARING}


def checkpoint_bytes(model: nn.Module) -> int:
    """Bytes of the model as a safetensors file, each shared tensor written once."""
    return len(weights.to_bytes(weights.named_tensors(model)))


def state_bytes(model: nn.Module, ids: torch.Tensor) -> int:
    """Bytes of weights, gradients and AdamW's two moments, counted after one real step."""
    (optimizer,) = train.adamw(model, 1e-3)
    train.language_model_loss(model, ids, ids).backward()
    optimizer.step()
    kept = [t for state in optimizer.state.values() for t in state.values()]
    kept += [t for p in model.parameters() for t in (p, p.grad)]
    total = sum(t.nbytes for t in kept)
    model.zero_grad(set_to_none=True)
    return total


def costs(models: dict[str, Transformer], seq_len: int, batch_size=4, repeats=5) -> list[dict]:
    """A row for each cost, a column for each model, and the last over the first (`ratio`)."""
    vocab = next(iter(models.values())).config.vocab_size
    ids = torch.randint(0, vocab, (batch_size, seq_len))
    optimizers = {name: train.adamw(model, 1e-5)[0] for name, model in models.items()}

    def step(name):
        train.language_model_loss(models[name], ids, ids).backward()
        optimizers[name].step()
        optimizers[name].zero_grad()

    def forward(name):
        with torch.no_grad():
            models[name](ids)

    timed = {}
    for what, fn in (("forward pass (ms)", forward), ("training step (ms)", step)):
        calls = {name: lambda fn=fn, name=name: fn(name) for name in models}
        timed[what] = bench.compared(calls.pop("none"), calls, warmup=1, repeats=repeats)
    exact = {
        "parameters (M)": lambda m: n_parameters(m) / 1e6,
        "checkpoint (MB)": lambda m: checkpoint_bytes(m) / MB,
        "weights, gradients, AdamW (MB)": lambda m: state_bytes(m, ids) / MB,
        "activations kept (MB)": lambda m: bench.saved_bytes(m, ids) / MB,
    }
    rows = [_row(name, {k: f(m) for k, m in models.items()}) for name, f in exact.items()]
    flops = {k: cost.forward_flops(m.config, seq_len, batch_size) / 1e9 for k, m in models.items()}
    rows.append(_row("forward GFLOP", flops, kind="computed"))
    for what, found in timed.items():
        times = {"none": found.timings["baseline"]} | {k: found.timings[k] for k in found.ratios}
        row = _row(what, {name: 1e3 * times[name].median for name in models})
        ratio = found.ratios["all"]
        row |= {"all / none": ratio.mean, "interval, low": ratio.low, "interval, high": ratio.high}
        rows.append(row | {"A/A band (±%)": 100 * found.band})
    return rows


def forward_time(rows: list[dict]) -> tuple[Estimate, float]:
    """From `costs`: a forward pass's time, all layers shared over none, and its A/A band (0..1)."""
    row = next(row for row in rows if row["cost"].startswith("forward pass"))
    ends = (row["all / none"], row["interval, low"], row["interval, high"])
    return Estimate(*ends), row["A/A band (±%)"] / 100


COST_COLUMNS = ["cost", *SHARING, "all / none", "interval, low", "interval, high"]
COST_COLUMNS += ["A/A band (±%)", "kind"]


def _row(name: str, values: dict[str, float], kind: str = "measured") -> dict:
    return {"cost": name, **values, "all / none": values["all"] / values["none"], "kind": kind}


def costs_figure(rows: list[dict]):
    """What sharing every layer leaves of each cost: 1 is no change."""
    rows = list(reversed(rows))
    ratios = {tr(row["cost"]): row["all / none"] for row in rows}
    title = tr("What sharing all layers leaves of each cost")
    fig = figures.blank(title, tr("shared / not shared"), height=380)
    bar_colours = [figures.COLOURS[0 if r < 0.9 else 1] for r in ratios.values()]
    fig.add_bar(x=list(ratios.values()), y=list(ratios), orientation="h", marker_color=bar_colours,
                texttemplate="%{x:.2f}", textposition="auto")  # fmt: skip
    fig.update_layout(meta={name: round(value, 2) for name, value in reversed(ratios.items())})
    fig.update_xaxes(range=[0, 1.15 * max(1, *ratios.values())])
    return figures.mark(fig, tr("no change"), x=1)


# --- QKV shared by the first n layers --------------------------------------------------------


def qkv_record() -> tuple[dict, dict[int, dict]]:
    """The recorded experiment and its summary by number of sharing layers."""
    experiment = recorded(qkv_sharing.NAME)
    return experiment, qkv_sharing.by_count(experiment["runs"])


def qkv_again(n_shared: int, seed: int = 0) -> tuple[float, list[dict]]:
    """The beginning of a recorded run anew: its loss now (nats), and a row beside the record.

    How far the two may lie apart is `record.expected`'s rule. Another Python has another library,
    so that nothing can be compared there.
    """
    experiment = qkv_record()[0]
    by_seed = {r["seed"]: r["early"] for r in experiment["runs"] if r["n_shared"] == n_shared}
    require_one_of("n_shared", n_shared, qkv_record()[1])
    live = qkv_sharing.validation_loss(n_shared, seed, qkv_sharing.EARLY)
    was, spread = expected(by_seed, seed)
    spread = spread if same_python(experiment) else None
    row = {"layers sharing": n_shared, "loss here": live, "loss, recorded": was}
    row |= {"may differ by": spread, "agrees": agrees(live, was, spread), "kind": "measured"}
    return live, [row]


def qkv_figure(live: dict[int, float] | None = None):
    """Held-out loss over n, early in training with `live` {n: loss} beside it, and at the end.

    Both panels show each recorded run and the mean, over as many nats.
    """
    experiment, summary = qkv_record()
    runs, settings = experiment["runs"], experiment["settings"]
    steps = {"early": settings["early"], "loss": settings["n_steps"]}
    titles = [tr("after {n} steps", n=n) for n in steps.values()]
    title = tr("Sharing QKV in the first n of {total} layers", total=settings["n_layer"])
    fig = figures.panels(titles, title)
    now = {"early": live or {}, "loss": {}}
    values = {what: [*(r[what] for r in runs), *now[what].values()] for what in steps}
    half = max(0.1, 0.75 * max(max(v) - min(v) for v in values.values()))
    for column, what in enumerate(steps, start=1):
        means = {n: s["mean"] for n, s in qkv_sharing.by_count(runs, what).items()}
        series = [
            (means, tr("mean of {n} seeds (recorded)", n=len(experiment["seeds"])),
             dict(mode="lines+markers", marker_color=figures.COLOURS[0])),
            ({}, tr("one seed (recorded)"), dict(mode="markers", x=[r["n_shared"] for r in runs],
             y=[r[what] for r in runs], marker=dict(symbol="line-ew-open", size=14,
             color=figures.COLOURS[6], line_width=1.5))),
            (now[what], tr("now, here (measured)"), dict(mode="markers", marker=dict(
             symbol="star", size=15, color=figures.COLOURS[1]))),
        ]  # fmt: skip
        for points_, name, style in series:
            xy = dict(x=list(points_), y=list(points_.values()))
            if points_ or "x" in style:
                fig.add_scatter(**xy | style, name=name, showlegend=column == 1, row=1, col=column)
        middle = (max(values[what]) + min(values[what])) / 2
        fig.update_yaxes(range=[middle - half, middle + half], row=1, col=column)
        fig.add_vline(
            x=settings["n_layer"] / 2,
            line=dict(dash="dash", color=colours.DARK, width=1.5),
            annotation_text=tr("half"),
            row=1,
            col=column,
        )
    fig.update_xaxes(title_text=tr("layers that share one QKV projection (1: none)"))
    fig.update_yaxes(title_text=tr("held-out loss (nats a token)"), col=1)
    meta = {tr("n = {n}: loss over n = 1", n=n): round(s["cost"], 3) for n, s in summary.items()}
    return fig.update_layout(meta=meta, legend=dict(orientation="h", y=-0.25), height=420)


def qkv_table() -> list[dict]:
    """The recorded losses by n, and what sharing cost within each seed."""
    return [
        {
            "layers sharing": n,
            "loss (nats)": round(s["mean"], 3),
            "lowest": round(s["low"], 3),
            "highest": round(s["high"], 3),
            "cost against none": round(s["cost"], 3),
            "its sd over seeds": round(s["cost_sd"], 3),
            "kind": "recorded",
        }
        for n, s in qkv_record()[1].items()
    ]


def attention_control() -> dict[str, dict[int, float]]:
    """Seed -> recorded loss of attention and of a convolution of 3 tokens, trained alike."""
    record = dynamic_attention.by_variant()
    return {
        "attention": record["attention"]["losses"],
        "convolution": record["dynamic-3"]["losses"],
    }


def without_training(counts=(1, 2, 3, 6), n_windows: int = 8) -> dict[int, float]:
    """Bits per byte of `stdlib-gpt` whose first n layers get the first one's QKV, untrained."""
    model = points.language_model()
    shared = {n: model if n == 1 else share_qkv(model, n) for n in counts}
    return {n: points.language_quality(m, n_windows).mean for n, m in shared.items()}


def without_training_figure(bits: dict[int, float]):
    """The damage of sharing after training."""
    title = tr("QKV shared after training, nothing retrained")
    names = tr("layers that share one QKV projection (1: none)"), tr("bits per byte")
    fig = figures.bars([str(n) for n in bits], list(bits.values()), title, *names, text=".2f")
    return fig.update_layout(meta={tr("n = {n}: bits per byte", n=n): round(b, 2)
                                   for n, b in bits.items()})  # fmt: skip
