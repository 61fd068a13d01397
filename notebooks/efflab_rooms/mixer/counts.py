"""Notebook 02's figures, explorer and exercises: MLP-Mixer beside a Vision Transformer."""

from efflab.data import published
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Slider, explorer, figures, number, tr
from efflab.structure.mixer import MixerConfig, mixer_flops, mixer_params, n_patches
from efflab.structure.vit import ViTConfig, vit_flops, vit_params

NAMES = {"mixer": "MLP-Mixer", "vit": "ViT"}
COLOURS = dict(zip(NAMES, figures.COLOURS, strict=False))
# --- Counts ----------------------------------------------------------------------------------


def published_rows() -> list[dict]:
    """The paper's models (224 x 224, no classifier): its rounded millions beside our count."""
    rows = []
    for row in published("mixer"):
        patch_size = int(row["model"].split("/")[1])
        sizes = [row[name] for name in ("layers", "channels", "d_token", "d_channel")]
        config = MixerConfig(224, patch_size, *sizes)
        counted, paper = mixer_params(config), row["params_millions"]
        gflop = mixer_flops(config) / 1e9
        rows.append(dict(model=f"Mixer-{row['model']}", patches=row["patches"], paper=paper,
                         ours=counted, ratio=counted / 1e6 / paper, gflop=gflop,
                         kind="computed"))  # fmt: skip
    return rows


PUBLISHED_COLUMNS = {
    "model": "model",
    "patches": "patches",
    "paper": "million parameters (published, no head)",
    "ours": "parameters (our formula)",
    "ratio": "ratio",
    "gflop": "GFLOP an image",
    "kind": "kind",
}


def base_rows(image_size: int = 224) -> list[dict]:
    """Mixer-B/16 and ViT-B/16 at one image size: parameters, arithmetic, and their ratio."""
    mixer = MixerConfig(image_size, 16, 12, 768, 384, 3072)
    vit = ViTConfig(image_size, 16, 12, 12, 768, 3072)
    rows = [
        dict(model="Mixer-B/16", params=mixer_params(mixer), gflop=mixer_flops(mixer) / 1e9),
        dict(model="ViT-B/16", params=vit_params(vit), gflop=vit_flops(vit) / 1e9),
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
    sides = [s for s in range(32, 1025, 32) if s % patch_size == 0]

    def flops(side):
        mixer = MixerConfig(side, patch_size, 12, d_model, d_model // 2, 4 * d_model)
        vit = ViTConfig(side, patch_size, 12, 1, d_model, 4 * d_model)  # heads cost nothing
        return mixer_flops(mixer), vit_flops(vit)

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
