"""What the experiments' records let us say of other machines: partial columns.

Only claims whose rule finds every figure that it asks for in the record of that machine. The record
of INT8 engines weighs files, so that `int8-size` can be judged; `int8-accuracy` asks for intervals
that it does not keep, `sparse-linear` for a recall that attention-bench does not try.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from efflab import cost
from efflab.config import PRESETS
from efflab.experiments import int8_engines
from efflab.experiments.provenance import machine_name
from efflab.experiments.record import blocks
from efflab.lab.verdict import Evidence
from efflab.publishing.catalog import ROOT
from efflab.publishing.column import Column
from efflab.publishing.judging import judged, room
from efflab_rooms.quantization import verdicts as quantization

LINEAR, ALL = ("torchao INT8 weights",), ("ONNX Runtime INT8", int8_engines.OPENVINO)
"""Engines whose weights have a scale a channel: linear maps alone, and the tables too."""


def size_figures(block: Mapping) -> list[Evidence]:
    """`int8-size`'s figures from a machine's block: the smallest file of each form.

    The same engines write the same bytes on every CPU; what may differ is which form comes first.
    """
    n_bytes = {run["engine"]: run["bytes"] for run in int8_engines.rows_of(block)}
    config, full = PRESETS["minilm-l6"], n_bytes[int8_engines.FP32]
    linear, every = (min(n_bytes[e] for e in engines) / full for engines in (LINEAR, ALL))
    tables = (config.vocab_size + config.max_len + config.type_vocab) * config.d_model
    return [
        Figure(quantization.ALL, 100 * (1 - every), "%", "recorded"),
        Figure(quantization.LINEAR, 100 * (1 - linear), "%", "recorded"),
        Figure(quantization.TABLES, 100 * tables / cost.num_params(config), "%", "computed"),
        Figure(quantization.HALF, 100 * (1 - 2 * every), "%", "computed"),
    ]


SOURCES: dict[str, tuple[str, Callable[[Mapping], list[Evidence]]]] = {
    "int8-size": (int8_engines.NAME, size_figures),
}
"""Claim -> the experiment whose record suffices, and the claim's figures from it."""


def from_records(known: Iterable[str] = (), root: Path = ROOT) -> list[Column]:
    """One column for each machine that a record names and `known` (names of machines) does not."""
    columns: dict[str, Column] = {}
    for claim, (experiment, figures_of) in SOURCES.items():
        folder = root / "data" / "experiments"
        if room(claim, root) is None or not (folder / f"{experiment}.json").exists():
            continue
        for block in blocks(experiment, folder):
            where, day = block["machine"], block["provenance"][-1]["date"]
            if not block["complete"] or machine_name(where) in known:
                continue
            column = columns.setdefault(
                machine_name(where), Column(where, day, {}, source="records")
            )
            column.verdicts[claim] = judged(claim, figures_of(block), root).record(claim)
    return list(columns.values())
