"""Partial columns of other machines, from the experiments' records.

Only claims whose rule finds all of its figures in a machine's record. The record of INT8 engines
has file sizes, so `int8-size` can be judged; `int8-accuracy` needs intervals that are not recorded,
`sparse-linear` a recall that attention-bench does not measure.
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
"""Engines with a scale per channel: of linear maps only, and of the tables too."""


def size_evidence(block: Mapping) -> list[Evidence]:
    """`int8-size`'s evidence from a machine's block: the smallest file of each kind of engine.

    The same engine writes the same bytes on every CPU.
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
"""Claim -> (experiment whose record suffices, function from its block to the evidence)."""


def from_records(known: Iterable[str] = (), root: Path = ROOT) -> list[Column]:
    """One column for each machine in the records that is not in `known` (names of machines)."""
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
