"""Notebook 08's map: an NPU's time over a GPU's, by product, batch and precision."""

from dataclasses import replace

import numpy as np

from efflab.acceleration import npu, systolic
from efflab.config import PRESETS
from efflab.devices import DEVICES
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Evidence, Slider, explorer, figures, tr

MODEL, BATCHES, CLAIMED = "bert-base", (1, 2, 4, 8, 16, 32, 64), 0.4
PAIRS = tuple((gpu, dtype) for gpu in ("V100 SXM2", "A100 40GB", "H100 SXM")
              for dtype in ("fp32", "fp16", "int8")
              if dtype in DEVICES[gpu].peak_flops)  # fmt: skip
GPUS = tuple(dict.fromkeys(gpu for gpu, _ in PAIRS))
RIVALS = ("TPUv1", "an array as strong as the GPU")
OVERHEAD = 10e-6  # seconds to start a product, for the second look


def rival(name: str, gpu: str, dtype: str) -> npu.Npu:
    """The NPU of that name; the imagined one has the GPU's own peak, precision and bandwidth."""
    require_one_of("npu", name, RIVALS)
    return npu.TPU_V1 if name == "TPUv1" else npu.twin(DEVICES[gpu], dtype)


def savings(gpu: str, dtype: str, seq_len: int, overhead=0.0, against="TPUv1") -> np.ndarray:
    """(products, batches): by how much of the GPU's time the NPU's is shorter."""
    require_one_of("gpu", gpu, GPUS)
    require_int("seq_len", seq_len)
    array, device = rival(against, gpu, dtype), DEVICES[gpu]
    columns = [[npu.saving(p, array, device, dtype, overhead)
                for p in systolic.block_products(PRESETS[MODEL], seq_len, batch)]
               for batch in BATCHES]  # fmt: skip
    return np.array(columns).T


def shares(seq_len: int, overhead=0.0, against="TPUv1") -> dict[tuple, float]:
    """Per cent of the map's cells at 40 % or more, by GPU and precision, and of all."""
    cells: dict = {pair: savings(*pair, seq_len, overhead, against).ravel() for pair in PAIRS}
    cells["all"] = np.concatenate(list(cells.values()))
    return {key: 100 * npu.share_at_least(v.tolist(), CLAIMED) for key, v in cells.items()}


def share_rows(seq_len: int) -> list[dict]:
    """Each GPU and precision: cells at 40 % or more, as they are, with 10 us, at equal strength."""
    looks = {"TPUv1, no overhead (%)": shares(seq_len),
             "TPUv1, 10 us a product (%)": shares(seq_len, OVERHEAD),
             "an array as strong as the GPU (%)": shares(seq_len, against=RIVALS[1])}  # fmt: skip
    keys = [*PAIRS, "all"]
    return [{"GPU": tr("all of the map") if key == "all" else f"{key[0]}, {key[1]}",
             **{name: round(found[key], 1) for name, found in looks.items()}, "kind": "computed"}
            for key in keys]  # fmt: skip


def npu_evidence(seq_len: int) -> list[Evidence]:
    """What the verdict on the claim rests on."""
    plain, late = shares(seq_len), shares(seq_len, OVERHEAD)
    twins = shares(seq_len, against=RIVALS[1])
    return [
        Evidence("cells", "cells of the map at 40 % or more", plain["all"], "%", "computed"),
        Evidence("cells-late", "the same with 10 us a product", late["all"], "%", "computed"),
        *(Evidence(gpu_id(*pair), ", ".join(pair), plain[pair], "%", "computed") for pair in PAIRS),
        Evidence("equal-array", "an array as strong as the GPU", twins["all"], "%", "computed"),
    ]


def gpu_id(gpu: str, dtype: str) -> str:
    """The id of a GPU's share: ("V100 SXM2", "fp16") -> "gpu-v100-sxm2-fp16"."""
    return f"gpu-{gpu}-{dtype}".lower().replace(" ", "-")


@explorer(
    overhead_us=Slider(0, 20, 0, step=5, unit="µs", label="overhead a product"),
    gpu=Choice(list(GPUS), "A100 40GB", label="GPU"),
    seq_len=Slider(32, 512, 128, scale="log2", unit="tokens", label="sequence length"),
    against=Choice(list(RIVALS), label="NPU"),
)
def latency_map(overhead_us=0, gpu="A100 40GB", seq_len=128, against="TPUv1"):
    """The NPU's time over the GPU's, by product and batch, in each of the GPU's precisions."""
    require(
        0 <= overhead_us <= 1000,
        "overhead_us",
        overhead_us,
        "from {low} to {high}",
        low=0,
        high=1000,
    )
    require_one_of("gpu", gpu, GPUS)
    dtypes = [dtype for g, dtype in PAIRS if g == gpu]
    found = {d: savings(gpu, d, seq_len, overhead_us * 1e-6, against) for d in dtypes}
    names = [tr(p.name) for p in systolic.block_products(PRESETS[MODEL], 1)]
    share = {d: 100 * npu.share_at_least(v.ravel(), CLAIMED) for d, v in found.items()}
    titles = [tr("{dtype}: {share} % of cells", dtype=d, share=f"{share[d]:.0f}")
              for d in dtypes]  # fmt: skip
    fig = figures.panels(titles, shared_yaxes=True, horizontal_spacing=0.03)
    for column, dtype in enumerate(dtypes, start=1):
        ratio = 1 - found[dtype]
        fig.add_heatmap(z=np.log10(ratio), x=[str(b) for b in BATCHES], y=names, row=1, col=column,
                        zmin=-1.5, zmax=1.5, colorscale="RdBu_r", showscale=column == len(dtypes),
                        text=[[_short(r) for r in line] for line in ratio], texttemplate="%{text}",
                        textfont_size=10, xgap=1, ygap=1,
                        colorbar=dict(tickvals=[-1, np.log10(0.6), 0, 1],
                                      ticktext=["0.1", "0.6", "1", "10"]))  # fmt: skip
    fig.update_xaxes(title_text=tr("batch"), type="category")
    fig.update_yaxes(autorange="reversed")
    everything = np.concatenate([v.ravel() for v in found.values()])
    overall = 100 * npu.share_at_least(everything, CLAIMED)
    title = tr("{npu}'s time over the {gpu}'s: {share} % of cells are at 0.6 or less",
               npu=tr(against), gpu=gpu, share=f"{overall:.0f}")  # fmt: skip
    meta = {tr("cells at 0.6 or less, GPU in {dtype} (%)", dtype=d): round(s, 1)
            for d, s in share.items()}  # fmt: skip
    meta[tr("least ratio")] = float((1 - everything).min())
    return fig.update_layout(title_text=title, height=400, meta=meta, margin_l=150)


def _short(ratio: float) -> str:
    """Two digits, as short as can be: .19, 6.8, 87."""
    return f"{ratio:.2f}"[1:] if ratio < 0.995 else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def explained(seq_len: int, batch: int = 1, gpu: str = "A100 40GB") -> list[dict]:
    """Where the time of each product goes on both sides: multiplying at the peak, idle, reading."""
    device = DEVICES[gpu]
    found = []
    for p in systolic.block_products(PRESETS[MODEL], seq_len, batch):
        least = 2 * p.macs
        free = replace(npu.TPU_V1, memory_bandwidth=float("inf"))
        array, whole = npu.npu_seconds(p, free), npu.npu_seconds(p, npu.TPU_V1)
        other = npu.gpu_seconds(p, device, "int8")
        found.append({
            "product": tr(p.name),
            "TPUv1: at its peak (us)": 1e6 * least / npu.TPU_V1.peak_ops,
            "its array (us)": 1e6 * array, "with its memory (us)": 1e6 * whole,
            "A100 INT8: at its peak (us)": 1e6 * least / device.peak("int8"),
            "its tiles and memory (us)": 1e6 * other, "kind": "computed",
        })  # fmt: skip
    return found
