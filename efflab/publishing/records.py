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
from efflab.publishing.judging import judge, room
from efflab_rooms.quantization import verdicts as quantization

LINEAR, ALL = ("torchao INT8 weights",), ("ONNX Runtime INT8", int8_engines.OPENVINO)
"""Engines whose weights have a scale a channel: linear maps alone, and the tables too."""


def size_evidence(block: Mapping) -> list[Evidence]:
    """`int8-size`'s evidence from a machine's block: the smallest file of each form.

    The same engines write the same bytes on every CPU; what may differ is which form comes first.
    """
    n_bytes = {run["engine"]: run["bytes"] for run in int8_engines.rows_of(block)}
    config, full = PRESETS["minilm-l6"], n_bytes[int8_engines.FP32]
    linear, every = (min(n_bytes[e] for e in engines) / full for engines in (LINEAR, ALL))
    tables = (config.vocab_size + config.max_len + config.type_vocab) * config.d_model
    share, smaller = 100 * tables / cost.num_params(config), quantization.SMALLER
    return [
        Evidence("all", smaller["all"], 100 * (1 - every), "%", "recorded"),
        Evidence("linear", smaller["linear"], 100 * (1 - linear), "%", "recorded"),
        Evidence("tables", quantization.TABLES, share, "%", "computed"),
        Evidence("half", smaller["half"], 100 * (1 - 2 * every), "%", "computed"),
    ]


SOURCES: dict[str, tuple[str, Callable[[Mapping], list[Evidence]]]] = {
    "int8-size": (int8_engines.NAME, size_evidence),
}
"""Claim -> the experiment whose record suffices, and the claim's figures from it."""


def from_records(known: Iterable[str] = (), root: Path = ROOT) -> list[Column]:
    """One column for each machine that a record names and `known` (names of machines) does not."""
    columns: dict[str, Column] = {}
    for claim, (experiment, evidence_of) in SOURCES.items():
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
            column.verdicts[claim] = judge(claim, evidence_of(block), root).record(claim)
    return list(columns.values())
