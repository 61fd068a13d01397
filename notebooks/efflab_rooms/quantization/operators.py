"""Where OpenVINO's time goes, operator by operator, in its own counters."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from efflab.privacy import load

Profiler = Callable[..., dict[str, tuple[str, float]]]
"""Inputs -> {node: (its type, seconds)} of the nodes that ran."""

PRODUCTS, ATTENTION = "the linear layers' products, in integers", "attention's own products, fp32"
DIVISIONS, REST = "smoothing's divisions and rounding to codes", "everything else"
GROUPS = (PRODUCTS, DIVISIONS, ATTENTION, REST)
REPEATS = 5


def openvino(path: Path) -> Profiler:
    """The model in this file, compiled with counters: each node's least time of five runs.

    The least, since whatever else runs on this machine only adds.
    """
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": True,
    }
    core = load("openvino").Core()
    request = core.compile_model(path, "CPU", hints).create_infer_request()

    def profile(*inputs) -> dict[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {}
        for i in range(REPEATS + 1):
            request.infer(inputs)
            for node in request.profiling_info:
                seconds = node.real_time.total_seconds()
                if i == 0 or seconds == 0:  # the first run makes what later ones keep
                    continue
                _, best = found.get(node.node_name, ("", seconds))
                found[node.node_name] = (node.node_type, min(best, seconds))
        return found

    return profile


def group(name: str, kind: str) -> str:
    """The group of a node, by its name and type."""
    if kind.startswith("FullyConnected"):
        return PRODUCTS
    if "aten::div" in name:
        return DIVISIONS
    return ATTENTION if kind in ("Subgraph", "ScaledDotProductAttention", "MatMul") else REST


def rows(profile: dict[str, tuple[str, float]]) -> list[dict]:
    """Milliseconds and share by group; OpenVINO divides and rounds to codes in one operator."""
    seconds, n = Counter(), Counter()
    for name, (kind, taken) in profile.items():
        seconds[group(name, kind)] += taken
        n[group(name, kind)] += 1
    total = sum(seconds.values())
    return [
        {
            "work": g,
            "operators": n[g],
            "ms": 1e3 * seconds[g],
            "share (%)": 100 * seconds[g] / total,
            "kind": "measured",
        }
        for g in GROUPS
    ]
