"""Notebook 03's windows over an image: Swin's bias, its counts, and who hears whom on digits."""

import torch
import torch.nn.functional as F
from torch import nn

from efflab import pretrained, train
from efflab.bench import one_thread
from efflab.data import digits, published
from efflab.errors import require_int
from efflab.lab import colours, figures, tr
from efflab.structure.swin import WindowAttention, relative_position_index, swin_counts

WINDOW = 4  # two by two windows on an 8 x 8 digit
PIXEL = (1, 1)  # the one that is changed, in the top-left window


def bias_picture(window_size: int = 4):
    """Which entry of the bias table each pair of pixels uses; equal offsets share one."""
    index = relative_position_index(window_size)
    rows = (2 * window_size - 1) ** 2
    meta = {tr("pairs"): index.numel(), tr("table rows"): rows}
    title = tr("{n} pairs of pixels read {m} learned numbers a head", n=index.numel(), m=rows)
    fig = figures.heatmap(index, title, tr("key pixel"), tr("query pixel"), square=True, meta=meta,
                          bar_title=tr("table row"))  # fmt: skip
    return fig


def transformers_gap(height: int = 8, width: int = 20, shift: int = 2) -> dict[str, float]:
    """Largest difference to `transformers`' Swin layer with the same weights.

    On an image that is not square: of the layer's output, of the gradient of its input, and of the
    gradient of its bias table.
    """
    SwinConfig = pretrained.transformers().SwinConfig
    from transformers.models.swin.modeling_swin import SwinLayer

    torch.manual_seed(0)
    C, n_head = 24, 3
    config = SwinConfig(window_size=WINDOW, drop_path_rate=0.0)
    config._attn_implementation = "eager"
    theirs = SwinLayer(config, C, (height, width), n_head, shift_size=shift)
    table = theirs.attention.relative_position_bias.relative_position_bias_table
    nn.init.normal_(table)
    ours = WindowAttention(C, n_head, WINDOW, shift)
    parts = [getattr(theirs.attention, f"{name}_proj") for name in "qkv"]
    ours.qkv.weight.data = torch.cat([p.weight.data for p in parts])
    ours.qkv.bias.data = torch.cat([p.bias.data for p in parts])
    ours.out.load_state_dict(theirs.attention.o_proj.state_dict())
    ours.bias_table.data = table.data.clone()

    x = torch.randn(2, height * width, C)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, _ = theirs(a, (height, width))
    normed = theirs.layernorm_before(b).view(2, height, width, C)
    y = b + ours(normed).flatten(1, 2)
    y = y + theirs.mlp(theirs.layernorm_after(y))
    weight = torch.randn_like(y)
    (expected * weight).sum().backward()
    (y * weight).sum().backward()
    return {
        "output": (y - expected).detach().abs().max().item(),
        "gradient of the input": (a.grad - b.grad).abs().max().item(),
        "gradient of the bias table": (table.grad - ours.bias_table.grad).abs().max().item(),
    }


def count_rows() -> list[dict]:
    """Swin-T and Swin-S: our parameter and multiply-accumulate counts beside the paper's."""
    rows = []
    for row in published("swin"):
        depths = tuple(int(n) for n in row["depths"].split(","))
        params, macs = swin_counts(row["channels"], depths, row["window"], row["image"])
        ours = dict(params=params, gmacs=macs / 1e9, kind="computed")
        paper = dict(params=1e6 * row["params_millions"], gmacs=row["gmacs"], kind="published")
        rows += [dict(model=row["model"]) | counts for counts in (ours, paper)]
    return rows


COUNT_COLUMNS = {"model": "model", "params": "parameters", "gmacs": "GMACs", "kind": "kind"}


def stack(shifts, d_model: int = 16, seed: int = 0) -> nn.ModuleList:
    """Window-attention layers of the given shifts with random weights."""
    torch.manual_seed(seed)
    return nn.ModuleList(WindowAttention(d_model, 2, WINDOW, shift) for shift in shifts)


@torch.no_grad()
def heard(shifts, pixel=PIXEL, d_model: int = 16) -> torch.Tensor:
    """How much each pixel of a digit changes after these layers when one input pixel does: (8,8).

    Residual layers with random weights; 0 means that no information arrived.
    """
    layers = stack(shifts, d_model)
    image = digits()[0][0]
    changed = image.clone()
    changed[pixel] = 1 - changed[pixel]
    lift = torch.linspace(-1, 1, d_model)
    x = torch.stack([image, changed])[..., None] * lift  # (2,8,8,C)
    for layer in layers:
        x = x + layer(F.layer_norm(x, (d_model,)))
    return (x[0] - x[1]).norm(dim=-1)


STACKS = {
    "one layer": (0,),
    "three layers, never shifted": (0, 0, 0),
    "second layer shifted": (0, 2),
    "second of three shifted": (0, 2, 0),
}


def talk_picture():
    """Which pixels hear of a change in the top-left window, by the layers' shifts."""
    maps = {name: heard(shifts) > 1e-6 for name, shifts in STACKS.items()}
    counts = {name: int(seen.sum()) for name, seen in maps.items()}
    titles = [tr("the digit")]
    titles += [f"{tr(name)}<br>{tr('{n} of 64 hear it', n=n)}" for name, n in counts.items()]
    title = tr("One changed pixel: who hears of it?")
    fig = figures.panels(titles, title, meta={tr(n): c for n, c in counts.items()})
    pictures = [digits()[0][0], *(seen.float() for seen in maps.values())]
    for column, z in enumerate(pictures, start=1):
        scale = [[0, colours.WHITE], [1, colours.BLACK if column == 1 else colours.BLUE]]
        where = dict(row=1, col=column, showlegend=False)
        look = dict(colorscale=scale, showscale=False, xgap=1, ygap=1)
        fig.add_heatmap(z=z.numpy().round(3), zmin=0, zmax=1, **look, row=1, col=column)
        cross = dict(symbol="x", size=9, color=colours.VERMILION)
        fig.add_scatter(x=[PIXEL[1]], y=[PIXEL[0]], mode="markers", marker=cross, **where)
        edge = dict(line=dict(color=colours.ORANGE, width=2), row=1, col=column)
        fig.add_vline(WINDOW - 0.5, **edge)
        fig.add_hline(WINDOW - 0.5, **edge)
    fig.update_xaxes(showticklabels=False, ticks="", constrain="domain")
    fig.update_yaxes(showticklabels=False, ticks="", autorange="reversed", constrain="domain")
    for column in range(1, 6):
        axis = "x" if column == 1 else f"x{column}"
        fig.update_yaxes(scaleanchor=axis, row=1, col=column)
    fig.update_annotations(font_size=12)
    fig.update_layout(height=280, margin=dict(l=12, r=12, t=100, b=12))
    return fig


class CornerReader(nn.Module):
    """Reads a digit off its top-left window alone after the layers: (B,8,8) -> (B,10)."""

    def __init__(self, shifts, d_model: int = 32):
        super().__init__()
        self.lift = nn.Linear(1, d_model)
        self.position = nn.Parameter(torch.randn(8, 8, d_model) / 2)
        self.layers = nn.ModuleList(WindowAttention(d_model, 4, WINDOW, s) for s in shifts)
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in shifts)
        self.head = nn.Linear(d_model * WINDOW**2, 10)

    def forward(self, images):
        x = self.lift(images[..., None]) + self.position
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + F.gelu(layer(norm(x)))
        return self.head(x[:, :WINDOW, :WINDOW].flatten(1))


@one_thread()
def corner_accuracy(shifts, n_steps: int = 120, seed: int = 0) -> float:
    """Test accuracy of a `CornerReader` trained for `n_steps` batches of 32 digits."""
    require_int("n_steps", n_steps)
    images, labels, test_images, test_labels = digits()
    torch.manual_seed(seed)
    model = CornerReader(shifts)

    def batch(step: int) -> train.Batch:
        rng = torch.Generator().manual_seed(seed * 10**6 + step)
        picked = torch.randint(len(images), (32,), generator=rng)
        return images[picked], labels[picked]

    train.fit(model, batch, n_steps, lr=5e-3, loss_fn=train.classification_loss)
    with torch.no_grad():
        return (model(test_images).argmax(-1) == test_labels).float().mean().item()
