"""One causal language model in several engines: PyTorch and OpenVINO, each in fp32, bf16 and INT8.

Every engine takes ids (B,T) and gives logits (B,T,V), on as many threads as torch uses. OpenVINO's
are compiled for one shape (B,T): tracing a windowed attention fixes its blocks for T.
Libraries are imported inside the functions.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.privacy import load
from efflab.compression.engines import file_bytes, pickled_bytes, torch_dynamic_int8
from efflab.compression.openvino import (
    compile_openvino,
    nncf_int8,
    quiet,
    save_openvino,
    smooth_for_nncf,
)
from efflab.config import ModelConfig
from efflab.errors import require
from efflab.rules import Count, Size
from efflab.tensors import Ids

Shape = tuple[Size, Size]
MOST_IDS = 2**24
"""Upper bound of B x T: tracing a model holds them all in memory."""


@dataclass(frozen=True)
class LanguageEngine:
    """A way to run the model, called and evaluated like it (`evaluate.window_bits`)."""

    name: str
    logits: Callable[[Tensor], Tensor]  # ids (B,T) -> (B,T,V), fp32
    nbytes: Count  # of all files that it loads
    config: ModelConfig

    def __call__(self, ids: Ids) -> Tensor:
        return self.logits(ids)


# --- PyTorch ---------------------------------------------------------------------------------


def torch_language(name: str, model: nn.Module) -> LanguageEngine:
    """A torch model in eager mode; its bytes are those of its state by `torch.save`."""

    @torch.no_grad()
    def logits(ids: Tensor) -> Tensor:
        return model(ids).float()

    return LanguageEngine(name, logits, pickled_bytes(model), model.config)


def bf16_language(model: nn.Module) -> LanguageEngine:
    """All weights and activations in bfloat16."""
    return torch_language("torch bf16", deepcopy(model).bfloat16())


def dynamic_language(model: nn.Module) -> LanguageEngine:
    """`torch_dynamic_int8` with a scale per output channel.

    Only linear layers: the token table, which also gives the logits, stays in fp32.
    """
    return torch_language("torch dynamic INT8", torch_dynamic_int8(model, per_channel=True))


# --- OpenVINO --------------------------------------------------------------------------------


def openvino_language(
    model: nn.Module,
    path: Path,
    shape: Shape,
    *,
    precision: str = "f32",
    half: bool = False,
) -> LanguageEngine:
    """OpenVINO without quantization, written to `path` (.xml).

    `precision` is what it computes in, "f32" or "bf16"; `half` stores the weights in fp16.
    """
    name = "OpenVINO " + ("fp16 stored" if half else precision.replace("f32", "fp32"))
    save_openvino(convert_language(model, shape), path, half=half)
    return language_file(name, path, shape, model.config, precision)


def openvino_language_int8(
    model: nn.Module,
    path: Path,
    shape: Shape,
    calibration: Ids,
    *,
    seven_bits: bool | None = None,
) -> LanguageEngine:
    """OpenVINO INT8 by NNCF, as `openvino_int8` for an encoder; written to `path` (.xml).

    `calibration`: ids (N,T), N a multiple of the shape's B. All weights, the token table's too,
    have a scale per output channel; attention's two products (Q K^T, V) stay in fp32.
    """
    batches = [(ids,) for ids in _split_batches(calibration, shape)]
    smooth = smooth_for_nncf(model, batches)
    quantized = nncf_int8(convert_language(smooth, shape), batches, seven_bits=seven_bits)
    save_openvino(quantized, path)
    return language_file("OpenVINO INT8", path, shape, model.config)


def convert_language(model: nn.Module, shape: Shape):
    """The model converted to OpenVINO, for ids of this one shape."""
    require(shape[0] * shape[1] <= MOST_IDS, "shape", shape, f"at most {MOST_IDS} ids")
    with quiet():
        ov, frontend = load("openvino"), load("openvino.frontend.pytorch")
        ids = torch.zeros(shape, dtype=torch.int64)
        inputs = [("ids", ov.PartialShape(list(shape)), ov.Type.i64)]
        rule = frontend.ConversionExtension("aten::mT", _convert_transpose)
        return ov.convert_model(model.eval(), example_input=ids, input=inputs, extension=[rule])


def _convert_transpose(context: Any) -> list:
    """OpenVINO's nodes for `Tensor.mT`, which its converter does not know."""
    opset15 = load("openvino").opset15
    x = context.get_input(0)
    *batch, row, column = range(x.get_partial_shape().rank.get_length())
    return opset15.transpose(x, opset15.constant([*batch, column, row])).outputs()


def language_file(
    name: str, path: Path, shape: Shape, config: ModelConfig, precision: str = "f32"
) -> LanguageEngine:
    """An OpenVINO language model that was written to `path` for this shape, compiled."""
    compiled = compile_openvino(path, precision)

    def logits(ids: Tensor) -> Tensor:
        batches = _split_batches(ids, shape)
        # copied, since every call writes its result into the same memory
        return torch.cat([torch.from_numpy(compiled((b.numpy(),))[0].copy()) for b in batches])

    return LanguageEngine(name, logits, file_bytes(path, path.with_suffix(".bin")), config)


def _split_batches(ids: Ids, shape: Shape) -> tuple[Tensor, ...]:
    """ids (N,T) as batches (B,T), for an engine that was compiled for this shape."""
    B, T = shape
    fits = ids.dim() == 2 and len(ids) > 0 and len(ids) % B == 0 and ids.shape[1] == T
    require(fits, "ids.shape", tuple(ids.shape), f"(a multiple of {B}, {T})")
    return ids.split(B)


check_module(__name__)
