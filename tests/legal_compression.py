"""Legal arguments of compression: see `legal_calls`.

What is written goes into a folder that ends with the process.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from legal_calls import encoder, ids, just, tensor
from torch import nn

from efflab.compression import affine, language, packed, sparse, values
from efflab.config import PRESETS
from efflab.tensors import Booleans

WEIGHT = "layers.0.ffn.body.up.weight"  # (16, 8)
BATCH = (torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))
INPUTS = {"calibration": just([BATCH])}


@cache
def _folder() -> TemporaryDirectory:
    return TemporaryDirectory()


def _path() -> Path:
    return Path(_folder().name) / "quantized.safetensors"


def quantized() -> affine.QuantizedTensor:
    return affine.quantize(tensor(4, 4)(), 4)


def one_weight() -> dict[str, affine.QuantizedTensor]:
    return {WEIGHT: affine.quantize(encoder().get_parameter(WEIGHT), 4)}


def saved() -> Path:
    packed.save_quantized(encoder(), one_weight(), _path())
    return _path()


def int8_matrix() -> torch.Tensor:
    return torch.eye(4, dtype=torch.int8)


def run(batch: Any) -> None:
    """Whatever a batch is, to whoever asks for one."""


def hessian() -> torch.Tensor:
    return torch.eye(4, dtype=torch.float64)


HEADS = just({0: [1]})
GRID = {"scale": lambda: torch.ones(1, 1), "zero": lambda: torch.zeros(1, 1)}
MODEL = {"model": encoder}
OF_MODEL = MODEL | {"quantized": one_weight}
BY_TYPE: dict[Any, Callable[[], Any]] = {
    Booleans: lambda: torch.ones(4) > 0,
    values.Weight: tensor(4, 4),
    values.Samples: tensor(4, 4),
    values.Hessian: hessian,
    values.NumberMatrix: lambda: torch.eye(4),
    values.IntegerVector: ids(4),
    language.Shape: just((1, 4)),
}
BY_NAME: dict[str, Callable[[], Any]] = {}
BY_FUNCTION: dict[str, dict[str, Callable[[], Any]]] = {
    "compression.affine.QuantizedTensor": {
        "packed": lambda: torch.ones(8, dtype=torch.uint8),
        "scale": lambda: torch.ones(1),
        "zero_point": lambda: torch.ones(1, dtype=torch.uint8),
        "bits": just(4),
        "shape": just((4, 4)),
        "axis": just(None),
        "group_size": just(None),
    },
    "compression.affine.QuantizedTensor.from_codes": {
        "codes": ids(4, 4),
        "scale": lambda: torch.ones(1),
        "zero_point": lambda: torch.ones(1),
        "bits": just(4),
    },
    "compression.affine.quantize": {"axis": just(0)},
    "compression.affine.from_rows": {
        "rows": lambda: torch.eye(2),
        "shape": just((2, 2)),
        "axis": just(0),
    },
    "compression.affine.to_rows": {"axis": just(0)},
    "compression.affine.round_to_grid": {"scale": lambda: torch.ones(4, 4)},
    "compression.affine.pack": {"values": ids(4)},
    "compression.affine.unpack": {"packed": lambda: torch.ones(4, dtype=torch.uint8)},
    "compression.calibration.layer_hessians": {"batches": just([BATCH[0]])},
    "compression.calibration.layers_error": {
        "model": lambda: nn.Linear(4, 4),
        "quantized": lambda: {"weight": quantized()},
        "hessians": lambda: {"weight": hessian()},
    },
    "compression.calibration.quantize_by": MODEL
    | {"method": just("gptq"), "bits": just(4), "batches": just([BATCH])},
    "compression.decoders.group_size": {"config": lambda: PRESETS["stdlib-gpt"]},
    "compression.decoders.weight_bytes": {"config": lambda: PRESETS["stdlib-gpt"]},
    "compression.openvino.smooth_model": MODEL | INPUTS,
    "compression.openvino.require_batches": INPUTS,
    "compression.engines.torch_smoothed": MODEL | INPUTS,
    "compression.engines.torch_static": MODEL | INPUTS,
    "compression.gptq.gptq": {"inputs": tensor(16, 4)},
    "compression.gptq.gptq_model": MODEL | {"batches": just([BATCH])},
    "compression.gptq.output_error": {"quantized": quantized},
    "compression.gptq.sweep": {"scale": lambda: torch.ones(4, 4), "zero_point": tensor(4, 4)},
    "compression.importance.head_importance": {"batches": just([BATCH])},
    "compression.importance.neuron_importance": {"batches": just([BATCH])},
    "compression.int8.input_grid": {"low": just(-1.0), "high": just(1.0)},
    "compression.int8.int_matmul": {"a": int8_matrix, "b": int8_matrix},
    "compression.int8.Int8Linear": {"span": just((-1.0, 1.0))},
    "compression.int8.Int8Linear.product": GRID,
    "compression.int8.outlier_ratio": {"peaks": lambda: torch.ones(4)},
    "compression.int8.smoothing": {"peaks": lambda: torch.ones(4)},
    "compression.int8.smooth_linear": {"factors": lambda: torch.ones(4)},
    "compression.int8.replace_linears": {"make": just(lambda name, linear: linear)},
    "compression.int8.calibrate": {"run": just(run)},
    "compression.int8.channel_peaks": {"run": just(run)},
    "compression.int8.static_int8": {
        "model": lambda: nn.Sequential(nn.Linear(4, 4)),
        "ranges": just({"0": (-1.0, 1.0)}),
    },
    "compression.packed.with_weights": OF_MODEL,
    "compression.packed.model_bytes": OF_MODEL,
    "compression.packed.save_quantized": OF_MODEL | {"path": _path},
    "compression.packed.load_quantized": {"path": saved},
    "compression.packed.load_model": {"path": saved, "build": just(encoder)},
    "compression.pruning.apply_masks": {"masks": lambda: {WEIGHT: torch.ones(16, 8) > 0}},
    "compression.pruning.hold_masks": MODEL | {"masks": lambda: {WEIGHT: torch.ones(16, 8) > 0}},
    "compression.pruning.weight_masks": {"make": just(lambda w: w > 0)},
    "compression.pruning.n_m_mask": {"n": just(2), "m": just(4)},
    "compression.pruning.gradual_schedule": {"initial": just(0.1)},
    "compression.pruning.prune_heads": {"heads": HEADS},
    "compression.pruning.head_masks": {"heads": HEADS},
    "compression.pruning.prune_ffn": {"neurons": HEADS},
    "compression.sparse.from_layout": {
        "parts": lambda: sparse.to_layout(torch.eye(4), "csr"),
        "shape": just((4, 4)),
    },
    "compression.values.finite_values": {"name": just("x")},
    "compression.values.finite_hessian": {"name": just("hessian")},
    "compression.vectorwise.OutliersApart": {"threshold": just(1.0)},
}
BY_OWNER: dict[str, Callable[[], Any]] = {
    "compression.affine.QuantizedTensor": quantized,
}
