"""Notebook 01's counts, explorers and exercises: what sharing removes, and what it leaves."""

import math
from dataclasses import replace

from efflab import cost
from efflab.config import PRESETS, SHARING, ModelConfig
from efflab.data import published
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Slider, Toggle, explorer, figures, number, tr

STRATEGIES = {
    "not-shared": "none",
    "shared-attention": "attention",
    "shared-ffn": "ffn",
    "all-shared": "all",
}
SENTENCE = dict(seq_len=128, batch_size=8)
MINILM_LAYERS, MINILM_LENGTH = 6, 32


# --- Counts against the paper ----------------------------------------------------------------


def published_rows() -> list[dict]:
    """Rows of data/published/albert.csv, each with its config and our count in millions.

    Unshared rows leave the pooler out, as the paper's do.
    """
    rows = published("albert")
    for row in rows:
        share, d_model = STRATEGIES[row["strategy"]], row["hidden"]
        row["config"] = replace(
            PRESETS["albert-base"],
            n_layer=row["layers"],
            d_model=d_model,
            n_head=d_model // 64,
            d_ff=4 * d_model,
            d_embed=row["embedding"],
            share=share,
            pooler=share != "none",
        )
        row["counted"] = cost.num_params(row["config"]) / 1e6
    return rows


def published_table() -> list[dict]:
    """Each published row beside our formula: millions of parameters, and their ratio."""
    return [
        {
            "sharing": STRATEGIES[row["strategy"]],
            "embedding": row["embedding"],
            "depth": row["layers"],
            "width": row["hidden"],
            "paper (M)": row["params_millions"],
            "formula (M)": round(row["counted"], 2),
            "ratio": round(row["counted"] / row["params_millions"], 3),
            "score in the paper": row["average_score"],
            "training speed in the paper": row["speedup_over_bert_large"],
            "kind": "computed",
        }
        for row in published_rows()
    ]


def parts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part; the parts add up to `cost.num_params`."""
    n_attention = 1 if config.share in ("attention", "all") else config.n_layer
    n_ffn = 1 if config.share in ("ffn", "all") else config.n_layer
    counts = {
        "embedding": cost.embedding_params(config),
        "attention": n_attention * cost.attention_params(config),
        "feed-forward": n_ffn * cost.ffn_params(config),
    }
    return counts | {"pooler": cost.num_params(config) - sum(counts.values())}


def removed(config: ModelConfig, share: str = "all") -> float:
    """Share of the parameters that `share` removes from the unshared model, 0 to 1."""
    require_one_of("share", share, SHARING)
    before, after = (cost.num_params(replace(config, share=s)) for s in ("none", share))
    return 1 - after / before


def albert_steps():
    """From BERT-base's shape to ALBERT-base, one change at a time: parameters by part."""
    bert = replace(PRESETS["albert-base"], d_embed=None, share="none")
    steps = {
        tr("nothing shared"): bert,
        tr("attention shared"): replace(bert, share="attention"),
        tr("FFN shared"): replace(bert, share="ffn"),
        tr("both shared"): replace(bert, share="all"),
        tr("both, and factorized embedding"): replace(bert, share="all", d_embed=128),
    }
    totals = {name: cost.num_params(c) / 1e6 for name, c in steps.items()}
    series = {tr(p): [parts(c)[p] / 1e6 for c in steps.values()] for p in parts(bert)}
    title = tr("Sharing empties the layers, the factorization empties the embedding")
    meta = {tr("{name}: million parameters", name=n): round(v, 1) for n, v in totals.items()}
    y_title = tr("parameters (millions)")
    names = [name.replace(", ", ",<br>") for name in steps]
    fig = figures.bars(names, series, title, "", y_title, stacked=True, meta=meta)
    fig.update_layout(legend=dict(orientation="h", y=-0.2, traceorder="normal"))
    fig.update_yaxes(range=[0, 1.12 * max(totals.values())])
    return fig.add_scatter(
        x=names,
        y=list(totals.values()),
        text=[f"{v:.1f}" for v in totals.values()],
        mode="text",
        textposition="top center",
        showlegend=False,
    )


# --- Explorers -------------------------------------------------------------------------------


@explorer(
    n_layer=Slider(1, 48, 12, step=1, label="layers"),
    d_model=Slider(128, 2048, 768, step=128, unit="channels", label="width"),
    share=Choice(SHARING, "all", label="shared"),
    d_embed=Choice((64, 128, 256, 0), 0, label="embedding width (0: the model's)"),
)
def sharing(n_layer=12, d_model=768, share="all", d_embed=0):
    """What sharing does to parameters, training states, activations and FLOPs (computed)."""
    require_one_of("share", share, SHARING)
    require_int("d_embed", d_embed, 0)
    n_head = math.gcd(d_model, max(1, d_model // 64))  # heads of 64 where the width allows it
    shape = (n_layer, n_head, d_model, 4 * d_model, 30000, 512)
    before = ModelConfig(*shape, type_vocab=2)
    after = replace(before, share=share, d_embed=d_embed or None)
    columns = [tr("nothing shared"), tr("your model")]
    meta = {}
    titles = [tr("parameters by part (millions)"), tr("yours, relative to nothing shared")]
    fig = figures.panels(titles, horizontal_spacing=0.14)
    for i, part in enumerate(("embedding", "attention", "feed-forward")):
        values = [parts(c)[part] / 1e6 for c in (before, after)]
        colour = figures.COLOURS[i]
        fig.add_bar(x=columns, y=values, name=tr(part), marker_color=colour, row=1, col=1)
    ratios = {tr(name): f(after) / f(before) for name, f in COSTS.items()}
    fig.add_bar(
        x=[name.replace(" ", "<br>") for name in ratios],
        y=list(ratios.values()),
        texttemplate="%{y:.2f}",
        marker_color=figures.COLOURS[4],
        showlegend=False,
        row=1,
        col=2,
    )
    less = 1 - ratios[tr("parameters")]
    meta = {tr("parameters removed (%)"): round(100 * less, 1)}
    meta |= {tr("{name}, ratio", name=name): round(v, 3) for name, v in ratios.items()}
    title = tr("{less}% fewer parameters, FLOPs x{flops}", less=number(100 * less),
               flops=number(ratios[tr("forward FLOPs")]))  # fmt: skip
    above = dict(orientation="h", x=1, xanchor="right", y=1.16, yanchor="bottom")
    fig.update_layout(barmode="stack", title_text=title, meta=meta, legend=above)
    fig.update_yaxes(range=[0, 1.15 * max(1, *ratios.values())], col=2)
    return fig


COSTS = {
    "parameters": cost.num_params,
    "training states": lambda c: cost.model_state_bytes(cost.num_params(c), 1, 0),
    "activations": lambda c: cost.activation_bytes(c, SENTENCE["seq_len"], SENTENCE["batch_size"]),
    "forward FLOPs": lambda c: cost.forward_flops(c, SENTENCE["seq_len"]),
}
"""What a config costs; all but the parameters at 8 texts of 128 tokens."""


def reuse_costs(n_tasks: int, n_classes: int = 8, every_text: bool = True) -> dict[str, tuple]:
    """(one encoder, an encoder a task): fp32 megabytes, and GFLOP for one text of 32 tokens.

    `every_text`: each text is wanted by all tasks; otherwise by one of them.
    """
    require_int("n_tasks", n_tasks)
    require_int("n_classes", n_classes, 2)
    config = PRESETS["minilm-l6"]
    encoder, head = cost.num_params(config), (config.d_model + 1) * n_classes
    by_part = cost.flops_by_part(config, MINILM_LENGTH)
    pass_flops = sum(by_part.values()) - by_part["logits"]
    head_flops = 2 * config.d_model * n_classes
    n_passes, n_heads = (n_tasks, n_tasks) if every_text else (1, 1)
    return {
        "memory": tuple(4e-6 * (n * encoder + n_tasks * head) for n in (1, n_tasks)),
        "compute": tuple(1e-9 * (n * pass_flops + n_heads * head_flops) for n in (1, n_passes)),
    }


@explorer(
    n_tasks=Slider(1, 32, 4, step=1, label="tasks"),
    n_classes=Slider(2, 1024, 8, scale="log2", label="classes of each head"),
    every_text=Toggle(True, label="every text goes to every task"),
)
def tasks(n_tasks=4, n_classes=8, every_text=True):
    """Memory and compute of MiniLM under n heads, and of n MiniLMs (computed)."""
    costs = reuse_costs(n_tasks, n_classes, every_text)
    counts = list(range(1, max(8, n_tasks) + 1))
    lines = {n: reuse_costs(n, n_classes, every_text) for n in counts}
    fig = figures.panels([tr("weights, fp32 (MB)"), tr("one text of 32 tokens (GFLOP)")])
    for column, what in enumerate(("memory", "compute"), start=1):
        for i, name in enumerate((tr("one encoder, n heads"), tr("an encoder a task"))):
            style = dict(color=figures.COLOURS[i], dash=figures.DASHES[i])
            fig.add_scatter(x=counts, y=[lines[n][what][i] for n in counts], name=name,
                            line=style, mode="lines", showlegend=column == 1,
                            row=1, col=column)  # fmt: skip
            fig.add_scatter(x=[n_tasks], y=[costs[what][i]], mode="markers+text",
                            text=[number(costs[what][i])], textposition="top left",
                            marker=dict(color=figures.COLOURS[i], size=10, symbol="circle"),
                            showlegend=False, row=1, col=column)  # fmt: skip
    ratio = {what: b / a for what, (a, b) in costs.items()}
    title = tr("{n} tasks: {memory}x the memory and {compute}x the compute without reuse",
               n=n_tasks, memory=number(ratio["memory"]),
               compute=number(ratio["compute"]))  # fmt: skip
    meta = {tr("memory saved (x)"): round(ratio["memory"], 2)}
    meta |= {tr("compute saved (x)"): round(ratio["compute"], 2)}
    fig.update_layout(title_text=title, meta=meta, legend=dict(x=0.01, y=0.99))
    fig.update_xaxes(title_text=tr("tasks"))
    fig.update_yaxes(rangemode="tozero")
    return fig
