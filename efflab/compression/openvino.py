"""OpenVINO's engines, plain and quantized by NNCF."""

import io
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efflab.arguments import check_arguments
from efflab.compression.engine import (
    Batch,
    Engine,
    Hidden,
    Inputs,
    file_bytes,
    quiet,
    require_batches,
    seven_bits_needed,
    smoothed_model,
)
from efflab.errors import require, require_one_of
from efflab.pretrained import mean_pool
from efflab.privacy import load
from efflab.tensors import Ids, Mask


@check_arguments
def openvino_fp32(model: nn.Module, folder: str | Path) -> Engine:
    """OpenVINO without quantization: fused operators, fp32 arithmetic."""
    converted = openvino_model(model)
    return openvino_engine("OpenVINO fp32", converted, Path(folder) / "fp32.xml")


@check_arguments
def openvino_int8(
    model: nn.Module,
    folder: str | Path,
    calibration: list[Batch],
    *,
    seven_bits: bool | None = None,
) -> Engine:
    """OpenVINO INT8 by NNCF: our smoothing, then weights per channel and inputs per tensor.

    Token table included, positions in 16 bits; attention's own two products stay in fp32.
    `seven_bits`: of the weights; by default where this CPU needs it (`seven_bits_needed`).
    """
    require_batches(calibration)
    smooth = smoothed_for_nncf(model, calibration)
    quantized = nncf_int8(openvino_model(smooth), calibration, seven_bits=seven_bits)
    return openvino_engine("OpenVINO INT8", quantized, Path(folder) / "int8.xml")


@check_arguments
def smoothed_for_nncf(model: nn.Module, calibration: Inputs) -> nn.Module:
    """The model with its outliers moved into weights, ready to be converted for `nncf_int8`."""
    smooth = smoothed_model(model, calibration)
    smooth.embedding.position.half()  # added, not looked up: NNCF leaves it as it is
    return smooth


@check_arguments
def nncf_int8(converted: Any, calibration: Inputs, *, seven_bits: bool | None):
    """An OpenVINO model of an already smoothed one, quantized: each of `calibration` is its inputs.

    `seven_bits`: of the weights; None where this CPU needs it (`seven_bits_needed`).
    """
    require_openvino("converted", converted)
    require_batches(calibration)
    seven_bits = seven_bits_needed() if seven_bits is None else seven_bits
    nncf, advanced = load("nncf"), load("nncf.quantization.advanced_parameters")
    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset(calibration, lambda batch: tuple(t.numpy() for t in batch))
    fix = advanced.OverflowFix.ENABLE if seven_bits else advanced.OverflowFix.DISABLE
    own = advanced.AdvancedSmoothQuantParameters(matmul=-1)  # it has been done
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
                smooth_quant_alphas=own,
            ),
        )


@contextmanager
def no_progress():
    """Without NNCF's progress bars: rich would draw them as widgets, which a notebook keeps."""
    from contextlib import redirect_stdout
    from unittest.mock import patch

    with patch("rich.console._is_jupyter", lambda: False), redirect_stdout(io.StringIO()):
        yield


@check_arguments
def require_openvino(name: str, converted: Any) -> None:
    """Refuse what is no model of OpenVINO's."""
    is_model = isinstance(converted, load("openvino").Model)
    require(is_model, name, converted, "an OpenVINO model")


@check_arguments
def openvino_model(model: nn.Module):
    """The encoder as an OpenVINO model with free batch and length."""
    with quiet():
        ov = load("openvino")
        ids = torch.ones(2, 16, dtype=torch.int64)
        shape = ov.PartialShape([-1, -1])
        inputs = [(name, shape, ov.Type.i64) for name in ("ids", "mask")]
        return ov.convert_model(
            Hidden(model).eval(), example_input=(ids, ids.clone()), input=inputs
        )


@check_arguments
def openvino_engine(name: str, model: Any, path: Path) -> Engine:
    """The OpenVINO model written to `path`, read back and compiled for this CPU."""
    require_openvino("model", model)
    load("openvino").save_model(model, path, compress_to_fp16=False)
    return openvino_file(name, path)


@check_arguments
def openvino_file(name: str, path: Path) -> Engine:
    """An OpenVINO model that was written to `path` before, compiled for this CPU."""
    compiled = openvino_compiled(path)

    @check_arguments
    def embed(ids: Ids, mask: Mask) -> Tensor:
        hidden = compiled((ids.numpy(), mask.numpy()))[0]
        return mean_pool(torch.from_numpy(hidden), mask)

    return Engine(name, embed, file_bytes(path, path.with_suffix(".bin")))


@check_arguments
def openvino_compiled(path: Path, precision: str = "f32"):
    """An OpenVINO model that was written to `path`, compiled for this CPU and torch's threads.

    `precision`: what is not quantized computes in it, "f32" or "bf16".
    """
    require_one_of("precision", precision, ("f32", "bf16"))
    hints = {
        "INFERENCE_PRECISION_HINT": precision,  # by default it may fall to bf16
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # a pinned thread waits for whoever else uses its core
    }
    return load("openvino").Core().compile_model(path, "CPU", hints)
