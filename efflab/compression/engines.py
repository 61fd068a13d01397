"""One encoder in several inference engines: the same function, its bytes on disk, its speed.

Every engine takes ids and mask (B,T) and gives unit-length sentence embeddings (B,C), on as many
threads as torch uses. Libraries are imported inside the functions. Language models are in
`efflab.compression.language`.
"""

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from efflab.arguments import check_arguments, check_module
from efflab.base.hooks import linear_layers, replaceable_linears, share_as
from efflab.base.privacy import load
from efflab.bench import cpu_features as cpu_features  # of this machine, for who times engines
from efflab.compression import int8
from efflab.compression.openvino import (
    Hidden,
    compile_openvino,
    nncf_int8,
    openvino_model,
    quiet,
    require_batches,
    save_openvino,
    seven_bits_needed,
    smooth_for_nncf,
    smooth_model,
)
from efflab.pretrained import mean_pool
from efflab.rules import Count
from efflab.tensors import Ids, Mask

Batch = tuple[Ids, Mask]
"""ids and attention mask, (B,T) int64 each."""


class Engine(NamedTuple):
    """A way to run the encoder."""

    name: str
    embed: Callable[[Tensor, Tensor], Tensor]  # ids, mask (B,T) -> unit vectors (B,C)
    nbytes: Count  # of all files that it loads


def file_bytes(*paths: Path) -> int:
    """Bytes of the files together."""
    return sum(path.stat().st_size for path in paths)


def pickled_bytes(model: nn.Module) -> int:
    """Bytes of the model's state as `torch.save` writes it, shared modules once.

    (`torch.save` finds shared tensors itself, but quantized modules unpack new ones per place.)
    """
    state, distinct = model.state_dict(), dict(model.named_modules())
    every = model.named_modules(remove_duplicate=False)
    repeats = tuple(f"{name}." for name, _ in every if name not in distinct)
    for name in [name for name in state if name.startswith(repeats)]:
        del state[name]
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def torch_engine(name: str, model: nn.Module) -> Engine:
    """A torch model with `encode`, run eagerly."""

    @check_arguments
    @torch.no_grad()
    def embed(ids: Ids, mask: Mask) -> Tensor:
        return mean_pool(model.encode(ids, mask).float(), mask)

    return Engine(name, embed, pickled_bytes(model))


# --- torch -----------------------------------------------------------------------------------


def fp32(model: nn.Module) -> Engine:
    """The model as it is."""
    return torch_engine("fp32 eager", model)


def bf16(model: nn.Module) -> Engine:
    """All weights and activations in bfloat16."""
    return torch_engine("bf16 eager", deepcopy(model).bfloat16())


def torch_dynamic(model: nn.Module, *, table: bool = False, per_channel: bool = False) -> Engine:
    """`torch_dynamic_int8` as an engine."""
    small = torch_dynamic_int8(model, table=table, per_channel=per_channel)
    return torch_engine("torch dynamic INT8", small)


def torch_dynamic_int8(
    model: nn.Module, *, table: bool = False, per_channel: bool = False
) -> nn.Module:
    """torch.ao.quantization.quantize_dynamic; by default weights have one scale per tensor.

    `per_channel`: one scale per output channel; `table`: the token table in 8 bits as well. What
    `int8.replace_linears` leaves stays.
    """
    import torch.ao.quantization as q

    linear = q.per_channel_dynamic_qconfig if per_channel else q.default_dynamic_qconfig
    spec: dict[Any, Any] = {nn.Linear: linear}
    every = model.named_modules(remove_duplicate=False)
    kept = set(linear_layers(model).values()) - set(replaceable_linears(model).values())
    spec |= {name: None for name, module in every if module in kept}
    if table:
        spec["embedding.token"] = q.float_qparams_weight_only_qconfig
    with quiet():
        return share_as(q.quantize_dynamic(model, spec), model)


def torch_smoothed(model: nn.Module, calibration: list[Batch]) -> Engine:
    """torch's dynamic INT8 after our smoothing, per channel and with the token table."""
    smooth = smooth_model(model, calibration)
    engine = torch_dynamic(smooth, table=True, per_channel=True)
    return engine._replace(name="torch dynamic INT8, smoothed")


def prepare_static(model: nn.Module) -> nn.Module:
    """A copy whose linear layers are wrapped in QuantStub and DeQuantStub, with observers."""
    import torch.ao.quantization as q

    observer = q.MinMaxObserver.with_args(reduce_range=seven_bits_needed())
    wrapped = int8.replace_linears(model, lambda name, linear: q.QuantWrapper(linear))
    for module in wrapped.modules():
        if isinstance(module, q.QuantWrapper):
            module.qconfig = q.QConfig(observer, q.default_per_channel_weight_observer)
    with quiet():
        return q.prepare(wrapped.eval())


def torch_static(model: nn.Module, calibration: list[Batch]) -> Engine:
    """torch.ao.quantization: prepare, run, convert; only the linear layers.

    Inputs have 7 bits where this CPU needs it (`seven_bits_needed`).
    """
    import torch.ao.quantization as q

    require_batches(calibration)
    observed = prepare_static(model)
    with torch.no_grad():
        for ids, mask in calibration:
            observed.encode(ids, mask)
    observed.pooler = None  # embeddings do not use it, so it has no range
    with quiet():
        return torch_engine("torch static INT8", q.convert(observed))


def torchao_int8(model: nn.Module) -> Engine:
    """torchao's weight-only INT8: stored in 8 bits, computed in fp32."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    copy = deepcopy(model)
    first = linear_layers(copy)  # quantize_ would take a shared one in each place
    with quiet():
        quantize_(copy, Int8WeightOnlyConfig(), filter_fn=lambda module, name: name in first)
    return torch_engine("torchao INT8 weights", copy)


# --- ONNX Runtime ----------------------------------------------------------------------------


def onnx_int8(model: nn.Module, folder: str | Path) -> Engine:
    """ONNX Runtime's dynamic INT8, weights per channel, tables too; written into `folder`.

    Weights have 7 bits where this CPU needs it (`seven_bits_needed`).
    """
    onnxruntime, quantization = load("onnxruntime"), load("onnxruntime.quantization")
    ids = torch.ones(2, 16, dtype=torch.int64)  # cloned below, or both become one input
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    full, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
    with quiet():
        names = dict(input_names=["ids", "mask"], dynamic_shapes=dict(ids=sizes, mask=sizes))
        exported = torch.onnx.export(
            Hidden(model).eval(), (ids, ids.clone()), dynamo=True, verbose=False, **names
        )
        exported.save(full)
        quantization.quantize_dynamic(
            full,
            small,
            per_channel=True,
            reduce_range=seven_bits_needed(),
            weight_type=quantization.QuantType.QInt8,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])

    @check_arguments
    def embed(ids: Ids, mask: Mask) -> Tensor:
        (hidden,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        return mean_pool(torch.from_numpy(hidden), mask)

    return Engine("ONNX Runtime INT8", embed, file_bytes(small))


# --- OpenVINO --------------------------------------------------------------------------------


def openvino_fp32(model: nn.Module, folder: str | Path) -> Engine:
    """OpenVINO without quantization: fused operators, fp32 arithmetic."""
    converted = openvino_model(model)
    return openvino_engine("OpenVINO fp32", converted, Path(folder) / "fp32.xml")


def openvino_int8(model: nn.Module, folder: str | Path, calibration: list[Batch]) -> Engine:
    """OpenVINO INT8 by NNCF: our smoothing, then weights per channel and inputs per tensor.

    The token table too, positions in 16 bits; attention's two products (Q K^T, V) stay in fp32.
    Weights have 7 bits where this CPU needs it (`seven_bits_needed`).
    """
    smooth = smooth_for_nncf(model, calibration)
    quantized = nncf_int8(openvino_model(smooth), calibration)
    return openvino_engine("OpenVINO INT8", quantized, Path(folder) / "int8.xml")


def openvino_engine(name: str, model: Any, path: Path) -> Engine:
    """The OpenVINO model written to `path`, read back and compiled for this CPU."""
    save_openvino(model, path)
    compiled = compile_openvino(path)

    @check_arguments
    def embed(ids: Ids, mask: Mask) -> Tensor:
        hidden = compiled((ids.numpy(), mask.numpy()))[0]
        return mean_pool(torch.from_numpy(hidden), mask)

    return Engine(name, embed, file_bytes(path, path.with_suffix(".bin")))


check_module(__name__)
