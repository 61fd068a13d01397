"""Notebook 03's BigBird: layouts, hops, cost, and the recall task that a window fails."""

import math

import numpy as np
import torch
from torch import nn

from efflab import train
from efflab.bench import one_thread
from efflab.config import ModelConfig
from efflab.data import recall_batch
from efflab.errors import require_int
from efflab.lab import Choice, Slider, explorer, figures, number, tr
from efflab.model import Transformer
from efflab.structure.bigbird import bigbird_layout, hops, token_mask
from efflab_rooms.sparse_attention.windows import add_mask

# The recall task of this notebook: 48 tokens in 12 blocks of 4, three layers, the question 40
# tokens after its answer's marker.
SEQ_LEN, BLOCK, N_LAYER, DISTANCE, N_SYMBOLS = 48, 4, 3, 40, 8
LAYOUTS = {
    "full": (12, 1, 0),
    "window": (0, 3, 0),
    "global": (1, 1, 0),
    "random": (0, 1, 3),
    "window + global": (1, 3, 0),
    "window + random": (0, 3, 3),
    "BigBird: all three": (1, 3, 2),
}
"""(global, window, random) blocks; a window of 1 is a block's own."""


def layout_of(name: str, seed: int = 0):
    """The (12,12) layout of an entry of `LAYOUTS`."""
    n_global, n_window, n_random = LAYOUTS[name]
    counts = dict(n_global=n_global, n_window=n_window, n_random=n_random)
    return bigbird_layout(SEQ_LEN // BLOCK, **counts, seed=seed)


NO_MISTAKE = math.log(2) / 32
"""A batch of 32 whose mean loss is below this gave every right answer more than even odds."""


def hops_needed(layout) -> int:
    """Layers that the answer's block needs to reach the question's; -1 when none suffice."""
    answer = (SEQ_LEN - DISTANCE) // BLOCK
    return int(hops(layout)[-1, answer])


class Recaller(nn.Module):
    """A small Transformer of `efflab.model` under any (T,T) mask, asked at its last token."""

    def __init__(self, mask, seed: int = 0, n_layer: int = N_LAYER, d_model: int = 16):
        super().__init__()
        torch.manual_seed(seed)
        config = ModelConfig(n_layer, 1, d_model, 2 * d_model, N_SYMBOLS + 2, len(mask),
                             norm_first=True)  # fmt: skip
        self.model = Transformer(config)
        for weight in self.model.parameters():
            if weight.dim() == 2:  # a model this narrow learns faster from larger weights
                torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        self.mask = mask[None, None]

    def forward(self, ids):
        """Logits of the answer, (B, symbols + 2)."""
        model = self.model
        x = model.embedding(ids)
        for layer in model.layers:
            x = layer(x, self.mask)
        return model.embedding.logits(model.final_norm(x)[:, -1])


@one_thread()
def recall(mask, distance: int = DISTANCE, *, n_steps: int = 300, seed: int = 0) -> float:
    """Accuracy on fresh sequences after training under a (T,T) mask; chance is 1/8.

    At most `n_steps` batches of 32, fewer once it has answered 20 in a row without a mistake.
    """
    require_int("n_steps", n_steps)
    seq_len = len(mask)
    recaller = Recaller(mask, seed)
    train.fit(
        recaller,
        lambda step: recall_batch(32, seq_len, distance, seed=seed * 10**6 + step),
        n_steps,
        until=lambda losses: len(losses) >= 20 and max(losses[-20:]) < NO_MISTAKE,
        lr=1e-2,
        loss_fn=train.classification_loss,
    )
    ids, answers = recall_batch(512, seq_len, distance, seed=10**9 + seed)
    with torch.no_grad():
        return (recaller(ids).argmax(-1) == answers).float().mean().item()


def recall_by_layout(names=tuple(LAYOUTS), seed: int = 0) -> list[dict]:
    """One row a layout: what the picture predicts, and what the trained model answers."""
    rows = []
    for name in names:
        layout = layout_of(name, seed)
        needed = hops_needed(layout)
        predicted = "yes" if 0 < needed <= N_LAYER else "no"
        accuracy = recall(token_mask(layout, BLOCK), seed=seed)
        rows.append(dict(
            name=name, share=100 * float(layout.float().mean()),
            hops=str(needed) if needed >= 0 else "never", predicted=predicted,
            accuracy=round(accuracy, 2), kind="measured",
        ))  # fmt: skip
    return rows


RECALL_COLUMNS = {
    "name": "blocks",
    "share": "% of pairs",
    "hops": "hops from question to answer",
    "predicted": "within 3 layers?",
    "accuracy": "recall accuracy",
    "kind": "kind",
}


def recall_figure(accuracies: dict[int, float], reach: int):
    """Accuracy over the distance, with the reach of the window's stack and chance."""
    fig = figures.line(
        list(accuracies), {tr("recall accuracy"): list(accuracies.values())},
        tr("Recall over the distance of the answer"), tr("distance of the answer (tokens)"),
        tr("accuracy"), meta={str(d): round(a, 2) for d, a in accuracies.items()},
    )  # fmt: skip
    figures.mark(fig, tr("reach: {n} tokens", n=reach), x=reach)
    figures.mark(fig, tr("chance"), y=1 / N_SYMBOLS)
    fig.update_yaxes(range=[0, 1.15])
    return fig


@explorer(
    n_global=Slider(0, 8, 2, step=1, unit="blocks", label="global"),
    n_window=Choice((1, 3, 5, 7, 9, 11, 13, 15), 3, unit="blocks", label="window"),
    n_random=Slider(0, 8, 3, step=1, unit="blocks", label="random"),
)
def bigbird_cost(n_global=2, n_window=3, n_random=3, n_blocks=64):
    """The layout's picture, how many hops lie between its blocks, and what it costs."""
    layout = bigbird_layout(n_blocks, n_global=n_global, n_window=n_window, n_random=n_random)
    distance = hops(layout)
    away = distance[~torch.eye(n_blocks, dtype=torch.bool)]
    unreached = int((away < 0).sum())
    furthest = int(away.max()) if not unreached else -1
    share = float(layout.float().mean())
    meta = dict(share=share, furthest=furthest, unreached=unreached, blocks=int(layout.sum()))
    words = tr("every block hears every other within {n} layers", n=furthest)
    if unreached:
        words = tr("{p} % of the blocks never hear each other",
                   p=number(100 * unreached / len(away)))  # fmt: skip
    title = tr("{p} % of full attention's blocks; {words}", p=number(100 * share), words=words)
    titles = [tr("layout: {n} blocks", n=n_blocks), tr("layers until one block hears another")]
    fig = figures.panels(titles, title, meta=meta, column_widths=[0.45, 0.55])
    add_mask(fig, layout, row=1, col=1)
    shown = 8
    counts = [int((away == n).sum()) for n in range(1, shown)]
    names = [*(str(n) for n in range(1, shown)), f"{shown}+", tr("never")]
    counts += [int((away >= shown).sum()), unreached]
    per_cent = 100 * np.array(counts) / len(away)
    fig.add_bar(x=names, y=per_cent, marker_color=figures.COLOURS[0], showlegend=False,
                text=[f"{p:.0f} %" if p else "" for p in per_cent], textangle=0,
                textposition="outside", row=1, col=2)  # fmt: skip
    fig.update_xaxes(type="category", title_text=tr("layers"), row=1, col=2)
    fig.update_yaxes(title_text=tr("% of block pairs"), range=[0, 110], row=1, col=2)
    return fig
