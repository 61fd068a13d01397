"""Notebook 14's beginning: where the FLOPs are, what windows and heads can take from them."""

from functools import lru_cache

from efflab import cost
from efflab.config import PRESETS
from efflab.errors import require, require_one_of
from efflab.experiments import case_study, lighten
from efflab.experiments.lighten import Damage, Recipe
from efflab.experiments.record import recorded
from efflab.lab import Choice, Slider, explorer, figures, number, tr

CONFIG, SEQ_LEN = PRESETS["stdlib-gpt"], case_study.SEQ_LEN
LENGTHS = (128, 256, 512)
SHARES = {
    "projections": "projections (%)",
    "scores": "scores (%)",
    "ffn": "ffn (%)",
    "embedding": "embedding (%)",
    "logits": "logits (%)",
}


@lru_cache(maxsize=1)
def record() -> dict:
    """The recorded case study."""
    return recorded(case_study.NAME)


@lru_cache(maxsize=1)
def widths() -> dict:
    """What the record found before any training."""
    (found,) = [run for run in record()["runs"] if run["part"] == "widths"]
    return found


def share_rows() -> list[dict]:
    """Parts of a forward pass by length, in per cent."""
    rows = []
    for seq_len in LENGTHS:
        parts = cost.flops_by_part(CONFIG, seq_len)
        total = sum(parts.values())
        row = {"tokens": seq_len, "GFLOP": total / 1e9}
        rows.append(row | {SHARES[part]: 100 * n / total for part, n in parts.items()}
                    | {"kind": "computed"})  # fmt: skip
    return rows


# --- One change at a time --------------------------------------------------------------------


@lru_cache(maxsize=1)
def damage() -> Damage:
    """What each window and each head alone adds to the loss, as recorded."""
    found = widths()
    return Damage(
        windows={(i, w): nats for i, row in enumerate(found["windows"])
                 for w, nats in zip(lighten.WIDTHS, row, strict=True)},
        heads={(i, h): nats for i, row in enumerate(found["heads"]) for h, nats in enumerate(row)},
    )  # fmt: skip


def damage_figure():
    """Nats a token that each change adds alone: windows by layer, heads by layer."""
    found = widths()
    titles = [tr("a window of so many tokens"), tr("without the head of this number")]
    title = tr("What one change alone adds to the loss (nats a token, recorded)")
    fig = figures.panels(titles, title, horizontal_spacing=0.12)
    columns = [[str(w) for w in lighten.WIDTHS], [str(h) for h in range(CONFIG.n_head)]]
    for i, (z, x) in enumerate(zip((found["windows"], found["heads"]), columns, strict=True), 1):
        fig.add_heatmap(z=z, x=x, y=[str(n) for n in range(CONFIG.n_layer)], coloraxis="coloraxis",
                        texttemplate="%{z:.2f}", row=1, col=i)  # fmt: skip
        fig.update_xaxes(type="category", row=1, col=i)
        fig.update_yaxes(type="category", autorange="reversed", row=1, col=i)
    fig.update_yaxes(title_text=tr("layer"), row=1, col=1)
    fig.layout.meta = {tr("dearest window"): max(map(max, found["windows"])),
                       tr("dearest head"): max(map(max, found["heads"]))}  # fmt: skip
    return fig.update_layout(coloraxis=dict(colorscale="Blues", cmax=0.4), height=360, margin_t=96)


def width_rows() -> list[dict]:
    """One window for all layers: what it removes alone, the heads that must go to 30 %."""
    return [
        {
            "window": row["width"] or tr("all"),
            "FLOPs gone, window alone (%)": 100 * row["windows_alone"],
            "heads that go too": row["n_heads"],
            "FLOPs gone (%)": 100 * row["removed"],
            "pairs that count (%)": 100 * row["removed_visible"],
            "nats added, untrained": row["added"],
            "kind": "recorded",
        }
        for row in widths()["widths"]
    ]


def chosen() -> Recipe:
    """Windows and heads by layer, the cheapest first, until 30 % of the FLOPs are gone."""
    return lighten.by_layer(CONFIG, damage(), case_study.SHARE, SEQ_LEN)


def recipe_rows(recipe: Recipe) -> list[dict]:
    """Each layer's window and the heads that it keeps."""
    left = recipe.heads_left(CONFIG.n_head)
    return [
        {"layer": i, "window": window or tr("all"), "heads kept": n, "kind": "computed"}
        for i, (window, n) in enumerate(zip(recipe.windows, left, strict=True))
    ]


def enough_alone() -> int:
    """Tokens from which windows of 16 alone remove 30 % of the FLOPs."""
    narrowest = lighten.windows_alone((lighten.WIDTHS[-1],) * CONFIG.n_layer)
    lengths = range(64, 4097, 64)
    return next(n for n in lengths
                if lighten.removed_share(CONFIG, narrowest, n) >= case_study.SHARE)  # fmt: skip


# --- The explorer ----------------------------------------------------------------------------

COUNTS = {"all products": "computed", "pairs that count": "visible"}


@explorer(
    share=Slider(0.02, 0.4, 0.3, step=0.02, label="share of the FLOPs to remove"),
    count=Choice(tuple(COUNTS), "all products", label="FLOPs are counted by"),
)
def lighter(share=0.3, count="all products"):
    """The cheapest windows and heads for a share of the FLOPs, layer by layer."""
    require(0.02 <= share <= 0.4, "share", share, "{low} to {high}", low=0.02, high=0.4)
    require_one_of("count", count, COUNTS)
    costs = damage()
    recipe = lighten.by_layer(CONFIG, costs, share, SEQ_LEN)
    gone = lighten.removed_share(CONFIG, recipe, SEQ_LEN, COUNTS[count])
    added = sum(max(0, costs.windows[i, w]) for i, w in enumerate(recipe.windows) if w)
    added += sum(costs.heads[i, h] for i, heads in enumerate(recipe.removed) for h in heads)
    n_heads = sum(map(len, recipe.removed))
    meta = {tr("FLOPs gone (%)"): 100 * gone, tr("heads gone"): n_heads,
            tr("nats added, one by one"): added}  # fmt: skip
    title = tr("{gone}% of the FLOPs: {n} heads go, and windows of", gone=number(100 * gone),
               n=n_heads)  # fmt: skip
    title += "<br>" + ", ".join(str(w or tr("all")) for w in recipe.windows)
    titles = [tr("window (tokens)"), tr("heads kept")]
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.12)
    layers = [str(i) for i in range(CONFIG.n_layer)]
    values = [w or SEQ_LEN for w in recipe.windows], recipe.heads_left(CONFIG.n_head)
    for i, y in enumerate(values):
        fig.add_bar(x=layers, y=list(y), text=[str(v) for v in y], showlegend=False,
                    marker_color=figures.COLOURS[i], row=1, col=i + 1)  # fmt: skip
        fig.update_xaxes(type="category", title_text=tr("layer"), row=1, col=i + 1)
    fig.update_yaxes(type="log", range=[1, 2.9], tickvals=[16, 32, 64, 128, 256, 512], row=1, col=1)
    fig.update_yaxes(range=[0, CONFIG.n_head + 0.6], row=1, col=2)
    return fig.update_layout(height=380, margin_t=112)
