"""Notebook 02's figures, explorer and exercises: MLP-Mixer beside a Vision Transformer."""

import csv

import torch
from torch import nn

from efflab.data import DATA_DIR
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Exercise, Slider, explorer, figures, number, tr
from efflab.structure.mixer import MixerLayer, mixer_flops, mixer_params, n_patches
from efflab.structure.vit import vit_flops, vit_params

NAMES = {"mixer": "MLP-Mixer", "vit": "ViT"}
COLOURS = dict(zip(NAMES, figures.COLOURS, strict=False))
# --- Counts ----------------------------------------------------------------------------------


def published_rows() -> list[dict]:
    """Rows of data/published/mixer.csv with our formula's count beside the paper's (224 x 224)."""
    rows = []
    with (DATA_DIR / "published" / "mixer.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            patch_size = int(row["model"].split("/")[1])
            sizes = [int(row[name]) for name in ("layers", "channels", "d_token", "d_channel")]
            counted = mixer_params(224, patch_size, *sizes)
            paper = int(row["params_no_head"])
            gflop = mixer_flops(224, patch_size, *sizes) / 1e9
            rows.append(dict(model=f"Mixer-{row['model']}", patches=int(row["patches"]),
                             paper=paper, ours=counted, ratio=counted / paper, gflop=gflop,
                             kind="computed"))  # fmt: skip
    return rows


PUBLISHED_COLUMNS = {
    "model": "model",
    "patches": "patches",
    "paper": "parameters (published, no head)",
    "ours": "parameters (our formula)",
    "ratio": "ratio",
    "gflop": "GFLOP an image",
    "kind": "kind",
}


def base_rows(image_size: int = 224) -> list[dict]:
    """Mixer-B/16 and ViT-B/16 at one image size: parameters, arithmetic, and their ratio."""
    mixer, vit = (image_size, 16, 12, 768, 384, 3072), (image_size, 16, 12, 768, 3072)
    rows = [
        dict(model="Mixer-B/16", params=mixer_params(*mixer), gflop=mixer_flops(*mixer) / 1e9),
        dict(model="ViT-B/16", params=vit_params(*vit), gflop=vit_flops(*vit) / 1e9),
    ]
    ratio = {key: rows[0][key] / rows[1][key] for key in ("params", "gflop")}
    rows.append(dict(model="Mixer / ViT", **ratio))
    for row in rows:
        row["flop_per_param"] = row["gflop"] * (1 if "/ V" in row["model"] else 1e9) / row["params"]
        row["kind"] = "computed"
    return rows


BASE_COLUMNS = {
    "model": "model",
    "params": "parameters (no head)",
    "gflop": "GFLOP an image",
    "flop_per_param": "FLOP a parameter",
    "kind": "kind",
}

# --- Explore --------------------------------------------------------------------------------


@explorer(
    image_size=Slider(32, 1024, 224, step=32, unit="pixels", label="image side"),
    patch_size=Choice((8, 16, 32), 16, label="patch side"),
    d_model=Slider(128, 2048, 768, step=128, label="width (d_model)"),
)
def mixer_or_vit(image_size=224, patch_size=16, d_model=768):
    """Arithmetic of twelve layers over the image's side, and where a layer's weights are."""
    require_one_of("patch_size", patch_size, (8, 16, 32))
    require_int("image_size", image_size, patch_size)
    require_int("d_model", d_model, 2)
    image_size -= image_size % patch_size  # a rest at the edge is cut off
    shape = (12, d_model, d_model // 2, 4 * d_model)
    sides = [s for s in range(32, 1025, 32) if s % patch_size == 0]

    def flops(side):
        return mixer_flops(side, patch_size, *shape), vit_flops(
            side, patch_size, 12, d_model, 4 * d_model
        )

    S = n_patches(image_size, patch_size)
    mixer, vit = flops(image_size)
    token, channel = 2 * S * (d_model // 2), 8 * d_model**2
    meta = {"patches": S, "mixer_gflop": mixer / 1e9, "vit_gflop": vit / 1e9}
    meta |= {"ratio": vit / mixer, "token_params": token, "attention_params": 4 * d_model**2}
    title = tr("{n} patches: the ViT needs {ratio} times the Mixer's FLOPs", n=number(S),
               ratio=number(vit / mixer, 2))  # fmt: skip
    titles = [tr("12 layers, GFLOP an image"), tr("one layer's matrices (millions)")]
    fig = figures.panels(
        titles, title, meta=meta, horizontal_spacing=0.12, column_widths=[0.6, 0.4]
    )
    curves = list(zip(*(flops(side) for side in sides), strict=True))
    for i, (kind, now) in enumerate((("mixer", mixer), ("vit", vit))):
        line = dict(color=COLOURS[kind], dash=figures.DASHES[i])
        fig.add_scatter(x=sides, y=[f / 1e9 for f in curves[i]], line=line, mode="lines",
                        name=NAMES[kind], row=1, col=1)  # fmt: skip
        fig.add_scatter(x=[image_size], y=[now / 1e9], mode="markers", showlegend=False,
                        marker=dict(size=12, color=COLOURS[kind], symbol=figures.MARKERS[i]),
                        row=1, col=1)  # fmt: skip
    parts = {
        tr("mixes patches"): (token, 4 * d_model**2),
        tr("mixes channels"): (channel, channel),
    }
    for i, (name, sizes) in enumerate(parts.items()):
        fig.add_bar(x=list(NAMES.values()), y=[n / 1e6 for n in sizes], name=name,
                    marker_color=figures.COLOURS[2 + i], row=1, col=2)  # fmt: skip
    fig.update_xaxes(title_text=tr("image side (pixels)"), col=1)
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, col=1)
    fig.update_layout(barmode="stack", legend=dict(x=0.53, xanchor="right", y=0.03))
    return fig


# --- Exercises -------------------------------------------------------------------------------


def _token_weights(answer):
    for side, patch_size, d_token in ((224, 16, 384), (448, 16, 384), (64, 8, 10)):
        expected = MixerLayer((side // patch_size) ** 2, 8, d_token, 8).token
        expected = sum(p.numel() for p in expected.parameters())
        called = f"token_weights({side}, {patch_size}, {d_token})"
        yield called, expected, answer(side, patch_size, d_token)


def _mix_tokens(answer):
    rng = torch.Generator().manual_seed(0)
    for S, C, hidden in ((4, 3, 5), (9, 16, 2)):
        x = torch.randn(2, S, C, generator=rng)
        up, down = (torch.randn(*shape, generator=rng) for shape in ((hidden, S), (S, hidden)))
        expected = (down @ nn.functional.gelu(up @ x)).numpy()
        y = answer(x, up, down)
        yield tr("mix_tokens of x {shape}", shape=tuple(x.shape)), expected, y.detach().numpy()


def _attention_over_mixing(answer):
    for S, C, d_token in ((196, 768, 384), (49, 512, 256), (3136, 768, 384)):
        expected = (8 * S * C**2 + 4 * S**2 * C) / (4 * S * C * d_token)
        yield f"cost_ratio({S}, {C}, {d_token})", expected, answer(S, C, d_token)


EXERCISES = {
    "02-1": Exercise(
        _token_weights,
        hint="Two matrices, patches x d_token and back, and a bias for each: d_token + patches.",
    ),
    "02-2": Exercise(
        _mix_tokens,
        hint="The matrices act on the patch dimension, the last but one: with x (B, S, C), "
        "up @ x already has the shape (B, d_token, C).",
    ),
    "02-3": Exercise(
        _attention_over_mixing,
        hint="Attention: 8 S C^2 for its four projections and 4 S^2 C for scores and sum. "
        "Token mixing: two products of S x d_token for each of C channels, 4 S C d_token.",
    ),
}
