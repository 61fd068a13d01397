"""OpenVINO models and NNCF's INT8, for encoders and language models.

What every INT8 engine needs is here too: calibration batches, outliers moved into the weights, and
whether this CPU needs 7-bit codes.
"""

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.privacy import load
from efflab.bench import cpu_features
from efflab.compression import int8
from efflab.errors import require, require_one_of
from efflab.tensors import Ids, Mask, Numbers

Inputs = Sequence[tuple[Numbers, ...]]
"""Batches as `encode` takes them: ids alone or ids and mask."""


def require_batches(calibration: Inputs) -> None:
    """Refuse a calibration without batches."""
    require(len(calibration) > 0, "calibration", calibration, "at least one batch")


def seven_bits_needed() -> bool:
    """Whether this CPU adds two 8-bit products in 16 bits, which 8-bit codes can overflow.

    VNNI and similar instructions add in 32 bits. With 7-bit codes on one side 16 bits suffice.
    """
    return not cpu_features()["vnni"]


def smoothing_strength(name: str) -> float:
    """`alpha` of `int8.smoothing` for the linear layer of that name.

    The last map of a feed-forward block follows a GELU, whose outliers are far larger than those
    of the weights, so more is moved there.
    """
    return 0.8 if name.endswith("down") else 0.5


def smooth_model(model: nn.Module, calibration: Inputs) -> nn.Module:
    """An equivalent copy with input outliers moved into the weights (`int8.smoothing`)."""
    require_batches(calibration)
    peaks = int8.channel_peaks(lambda batch: model.encode(*batch), model, calibration)

    def make(name: str, linear: nn.Linear) -> nn.Module:
        if name not in peaks:
            return linear
        factors = int8.smoothing(peaks[name], linear.weight, smoothing_strength(name))
        return int8.smooth_linear(linear, factors)

    return int8.replace_linears(model, make)


quiet = partial(warnings.catch_warnings, action="ignore")
"""Silences torch.ao.quantization's deprecation warnings; the notebook's text mentions them."""


class Hidden(nn.Module):
    """`model.encode` as a module's forward, for exporters: ids, mask -> (B,T,C)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Ids, mask: Mask) -> Tensor:
        return self.model.encode(ids, mask)


def openvino_model(model: nn.Module):
    """The encoder as an OpenVINO model with dynamic batch size and length."""
    with quiet():
        ov = load("openvino")
        ids = torch.ones(2, 16, dtype=torch.int64)
        shape = ov.PartialShape([-1, -1])
        inputs = [(name, shape, ov.Type.i64) for name in ("ids", "mask")]
        return ov.convert_model(
            Hidden(model).eval(), example_input=(ids, ids.clone()), input=inputs
        )


def smooth_for_nncf(model: nn.Module, calibration: Inputs) -> nn.Module:
    """The model with outliers moved into the weights, ready to be converted for `nncf_int8`."""
    smooth = smooth_model(model, calibration)
    if smooth.embedding.position is not None:
        smooth.embedding.position.half()  # it is added, not looked up, so NNCF skips it
    return smooth


def nncf_int8(converted: Any, calibration: Inputs, *, seven_bits: bool | None = None):
    """Quantize an OpenVINO model (smoothed before conversion) on `calibration`, tuples of inputs.

    `seven_bits`: of the weights; None: if this CPU needs it (`seven_bits_needed`).
    """
    require_openvino("converted", converted)
    require_batches(calibration)
    seven_bits = seven_bits_needed() if seven_bits is None else seven_bits
    nncf, advanced = load("nncf"), load("nncf.quantization.advanced_parameters")
    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset(calibration, lambda batch: tuple(t.numpy() for t in batch))
    fix = advanced.OverflowFix.ENABLE if seven_bits else advanced.OverflowFix.DISABLE
    alphas = advanced.AdvancedSmoothQuantParameters(matmul=-1)  # off: smoothed already
    with quiet(), no_progress():
        return nncf.quantize(
            converted,
            data,
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(types=["ScaledDotProductAttention"]),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=fix,
                smooth_quant_alphas=alphas,
            ),
        )


@contextmanager
def no_progress():
    """Silence NNCF's progress bars, which rich would draw as widgets that a notebook stores."""
    from rich import console

    is_jupyter = console._is_jupyter
    console._is_jupyter = lambda: False  # NNCF makes its own console: no other switch
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        console._is_jupyter = is_jupyter


def require_openvino(name: str, converted: Any) -> None:
    """Refuse anything but an OpenVINO model."""
    is_model = isinstance(converted, load("openvino").Model)
    require(is_model, name, converted, "an OpenVINO model")


def save_openvino(model: Any, path: Path, *, half: bool = False) -> None:
    """Write an OpenVINO model to `path` (.xml); `half`: its fp32 weights in fp16."""
    require_openvino("model", model)
    load("openvino").save_model(model, path, compress_to_fp16=half)


def cpu_hints(precision: str = "f32") -> dict:
    """How OpenVINO is to compile for this CPU, on as many threads as torch uses.

    `precision`: of everything that is not quantized, "f32" or "bf16".
    """
    require_one_of("precision", precision, ("f32", "bf16"))
    return {
        "INFERENCE_PRECISION_HINT": precision,  # by default it may fall to bf16
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # a pinned thread cannot leave a busy core
    }


def compile_openvino(path: Path, precision: str = "f32"):
    """An OpenVINO model that was written to `path`, compiled for this CPU (`cpu_hints`)."""
    return load("openvino").Core().compile_model(path, "CPU", cpu_hints(precision))


check_module(__name__)
