"""One encoder in the engines that people use: the same function, its bytes on disk, its speed.

Every engine takes ids and mask (B,T) and gives unit-length sentence embeddings (B,C), on as many
threads as torch uses. Engines load inside their functions; OpenVINO and NNCF report usage to a
server by default, which `no_telemetry` turns off while they are called.
"""

import io
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from efflab.bench import cpu_features as cpu_features  # with the engines, whose speed they decide
from efflab.compression import int8
from efflab.errors import require
from efflab.pretrained import mean_pool

Batch = tuple[Tensor, Tensor]
"""ids and attention mask, (B,T) int64 each."""


@dataclass(frozen=True)
class Engine:
    """A way to run the encoder."""

    name: str
    embed: Callable[[Tensor, Tensor], Tensor]  # ids, mask (B,T) -> unit vectors (B,C)
    nbytes: int  # of all files that it loads


class Hidden(nn.Module):
    """`model.encode` as a module's forward, which exporters want: ids, mask -> (B,T,C)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.encode(ids, mask)


def file_bytes(*paths: Path) -> int:
    """Bytes of the files together."""
    return sum(Path(path).stat().st_size for path in paths)


def saved_bytes(model: nn.Module) -> int:
    """Bytes of the model's state as `torch.save` writes it."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def torch_engine(name: str, model: nn.Module) -> Engine:
    """A torch model with `encode`, run eagerly."""

    @torch.no_grad()
    def embed(ids: Tensor, mask: Tensor) -> Tensor:
        return mean_pool(model.encode(ids, mask).float(), mask)

    return Engine(name, embed, saved_bytes(model))


def run_all(model: nn.Module, batches: list[Batch]) -> None:
    """Pass every batch through, for what observers see of it."""
    with torch.no_grad():
        for ids, mask in batches:
            model.encode(ids, mask)


# --- torch -----------------------------------------------------------------------------------


def fp32(model: nn.Module) -> Engine:
    """The model as it is."""
    return torch_engine("fp32 eager", model)


def bf16(model: nn.Module) -> Engine:
    """All weights and activations in bfloat16."""
    return torch_engine("bf16 eager", deepcopy(model).bfloat16())


@contextmanager
def quiet():
    """Without the deprecation warnings of torch.ao.quantization, which the text states."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def torch_dynamic(model: nn.Module, *, table: bool = False, per_channel: bool = False) -> Engine:
    """torch.ao.quantization.quantize_dynamic: as it comes, weights have one scale a tensor.

    `per_channel`: one an output channel; `table`: the token table in 8 bits as well.
    """
    import torch.ao.quantization as q

    linear = q.per_channel_dynamic_qconfig if per_channel else q.default_dynamic_qconfig
    spec = {nn.Linear: linear}
    if table:
        spec["embedding.token"] = q.float_qparams_weight_only_qconfig
    with quiet():
        return torch_engine("torch dynamic INT8", q.quantize_dynamic(model, spec))


def torch_smoothed(model: nn.Module, calibration: list[Batch]) -> Engine:
    """torch's dynamic INT8 with scales by channel after our smoothing, and the token table."""
    smooth = smoothed_model(model, calibration)
    return replace(
        torch_dynamic(smooth, table=True, per_channel=True), name="torch dynamic INT8, smoothed"
    )


def seven_bits_needed() -> bool:
    """Whether this CPU adds two 8-bit products into 16 bits, where 8-bit codes may not fit.

    VNNI and its like add into 32. One side's codes in 7 bits always fit.
    """
    return not cpu_features()["vnni"]


def prepared(model: nn.Module, *, seven_bits: bool | None = None) -> nn.Module:
    """A copy whose linear layers stand between QuantStub and DeQuantStub, with observers."""
    import torch.ao.quantization as q

    observer = q.MinMaxObserver.with_args(
        reduce_range=seven_bits_needed() if seven_bits is None else seven_bits
    )
    wrapped = int8.replace_linears(model, lambda name, linear: q.QuantWrapper(linear))
    for module in wrapped.modules():
        if isinstance(module, q.QuantWrapper):
            module.qconfig = q.QConfig(observer, q.default_per_channel_weight_observer)
    with quiet():
        return q.prepare(wrapped.eval())


def torch_static(
    model: nn.Module, calibration: list[Batch], *, seven_bits: bool | None = None
) -> Engine:
    """torch.ao.quantization: prepare, run, convert; the linear layers alone.

    `seven_bits`: of the inputs; by default where this CPU needs it (`seven_bits_needed`).
    """
    import torch.ao.quantization as q

    observed = prepared(model, seven_bits=seven_bits)
    run_all(observed, calibration)
    observed.pooler = None  # calibration never reaches it: no embedding needs it
    with quiet():
        return torch_engine("torch static INT8", q.convert(observed))


def torchao_int8(model: nn.Module) -> Engine:
    """torchao's weight-only INT8: kept in 8 bits, computed in fp32."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    copy = deepcopy(model)
    with quiet():
        quantize_(copy, Int8WeightOnlyConfig())
    return torch_engine("torchao INT8 weights", copy)


# --- ONNX Runtime ----------------------------------------------------------------------------


def onnx_int8(model: nn.Module, folder: Path, *, seven_bits: bool | None = None) -> Engine:
    """ONNX Runtime's dynamic INT8, weights per channel, tables too; written into `folder`.

    `seven_bits`: of the weights; by default where this CPU needs it (`seven_bits_needed`).
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ids = torch.ones(2, 16, dtype=torch.int64)  # given twice, it would become one input
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    full, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
    with quiet():
        names = dict(input_names=["ids", "mask"], dynamic_shapes=dict(ids=sizes, mask=sizes))
        exported = torch.onnx.export(
            Hidden(model).eval(), (ids, ids.clone()), dynamo=True, verbose=False, **names
        )
        exported.save(full)
        quantize_dynamic(
            full,
            small,
            per_channel=True,
            reduce_range=seven_bits_needed() if seven_bits is None else seven_bits,
            weight_type=QuantType.QInt8,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(small, options, providers=["CPUExecutionProvider"])

    def embed(ids: Tensor, mask: Tensor) -> Tensor:
        (hidden,) = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        return mean_pool(torch.from_numpy(hidden), mask)

    return Engine("ONNX Runtime INT8", embed, file_bytes(small))


# --- OpenVINO --------------------------------------------------------------------------------


@contextmanager
def no_telemetry():
    """OpenVINO's and NNCF's own switches against sending usage data, set while inside."""
    switches = {"CI": "true", "NNCF_CI": "1"}
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def smoothing_strength(name: str) -> float:
    """`alpha` of `int8.smoothing` for the linear layer of that name.

    The last map of a feed-forward block follows a GELU, whose outliers are far larger than the
    weights': there more has to move.
    """
    return 0.8 if name.endswith("down") else 0.5


def smoothed_model(model: nn.Module, calibration: list[Batch]) -> nn.Module:
    """A copy that computes the same with its outliers moved into the weights (`int8.smoothing`)."""
    run = lambda batch: model.encode(*batch)  # noqa: E731
    peaks = int8.channel_peaks(run, model, calibration)

    def make(name: str, linear: nn.Linear) -> nn.Module:
        if name not in peaks:
            return linear
        factors = int8.smoothing(peaks[name], linear.weight, smoothing_strength(name))
        return int8.smoothed(linear, factors)

    return int8.replace_linears(model, make)


def openvino_fp32(model: nn.Module, folder: Path) -> Engine:
    """OpenVINO without quantization: fused operators, fp32 arithmetic."""
    converted = openvino_model(model)
    return openvino_engine("OpenVINO fp32", converted, Path(folder) / "fp32.xml")


def openvino_int8(
    model: nn.Module, folder: Path, calibration: list[Batch], *, seven_bits: bool | None = None
) -> Engine:
    """OpenVINO INT8 by NNCF: our smoothing, then weights per channel and inputs per tensor.

    Token table included, positions in 16 bits; attention's own two products stay in fp32.
    `seven_bits`: of the weights; by default where this CPU needs it (`seven_bits_needed`).
    """
    require(len(calibration) > 0, "calibration", calibration, "at least one batch")
    seven_bits = seven_bits_needed() if seven_bits is None else seven_bits
    with no_telemetry():
        import nncf
        from nncf.quantization import advanced_parameters as advanced

        nncf.set_log_level(40)  # errors only
        smooth = smoothed_model(model, calibration)
        smooth.embedding.position.half()  # added, not looked up: NNCF leaves it as it is
        converted = openvino_model(smooth)
        data = nncf.Dataset(calibration, lambda batch: tuple(t.numpy() for t in batch))
        fix = advanced.OverflowFix.ENABLE if seven_bits else advanced.OverflowFix.DISABLE
        own = advanced.AdvancedSmoothQuantParameters(matmul=-1)  # it has been done
        with quiet(), no_progress():
            quantized = nncf.quantize(
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
    return openvino_engine("OpenVINO INT8", quantized, Path(folder) / "int8.xml")


@contextmanager
def no_progress():
    """Without NNCF's progress bars: rich would draw them as widgets, which a notebook keeps."""
    from contextlib import redirect_stdout
    from unittest.mock import patch

    with patch("rich.console._is_jupyter", lambda: False), redirect_stdout(io.StringIO()):
        yield


def openvino_model(model: nn.Module):
    """The encoder as an OpenVINO model with free batch and length."""
    with no_telemetry(), quiet():
        import openvino as ov

        ids = torch.ones(2, 16, dtype=torch.int64)
        shape = ov.PartialShape([-1, -1])
        inputs = [(name, shape, ov.Type.i64) for name in ("ids", "mask")]
        return ov.convert_model(
            Hidden(model).eval(), example_input=(ids, ids.clone()), input=inputs
        )


def openvino_engine(name: str, model, path: Path) -> Engine:
    """The OpenVINO model written to `path`, read back and compiled for this CPU."""
    with no_telemetry():
        import openvino as ov

        ov.save_model(model, path, compress_to_fp16=False)
    return openvino_file(name, path)


def openvino_file(name: str, path: Path) -> Engine:
    """An OpenVINO model that was written to `path` before, compiled for this CPU."""
    with no_telemetry():
        import openvino as ov

        hints = {
            "INFERENCE_PRECISION_HINT": "f32",  # what is not quantized must not fall to bf16
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # a pinned thread waits for whoever else uses its core
        }
        compiled = ov.Core().compile_model(path, "CPU", hints)

    def embed(ids: Tensor, mask: Tensor) -> Tensor:
        hidden = compiled((ids.numpy(), mask.numpy()))[0]
        return mean_pool(torch.from_numpy(hidden), mask)

    return Engine(name, embed, file_bytes(path, path.with_suffix(".bin")))
