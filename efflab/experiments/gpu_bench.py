"""The GPU side of chapter 2, on any CUDA machine in under five minutes: `make bench-gpu`.

Precision by shape, time and memory of a training step, eager against compiled, launch overhead,
attention kernels. Every part takes a device and sizes, so that its code runs on a CPU too, as in
the tests.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import matmul

import torch
import torch.nn.functional as F

from efflab import bench
from efflab.acceleration import block, fusion
from efflab.config import ModelConfig
from efflab.errors import require, require_one_of
from efflab.experiments.record import EXPERIMENTS, machines, read_record, run_cases, with_ends
from efflab.model import Transformer, attention_written_out

NAME = "gpu-bench"
N_HEAD, HEAD_DIM = 8, 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NO_GPU = "no CUDA GPU here: bench-gpu has nothing to measure"


@dataclass(frozen=True)
class Sizes:
    """The sizes that the parts measure."""

    products: tuple[int, ...] = (256, 1024, 4096, 8192)  # square matrices
    model: tuple[int, int, int] = (12, 768, 512)  # layers, channels, tokens
    batch_sizes: tuple[int, ...] = (4, 32)
    block: tuple[int, int] = (1024, 1024)  # channels, tokens
    chains: tuple[int, ...] = (1, 4, 16, 64)  # kernels
    values: tuple[int, ...] = (2**8, 2**14, 2**18, 2**22, 2**25, 2**27)
    lengths: tuple[int, ...] = (512, 2048, 8192)  # tokens
    repeats: int = 11


# --- The parts -------------------------------------------------------------------------------


def precision_by_shape(device: str, sizes: Sizes) -> dict:
    """Square matrix products: TFLOP/s in each format, and the speedup over fp32."""
    rows = []
    for n in sizes.products:
        calls = {
            name: partial(matmul, *_matrices(n, dtype, device)) for name, dtype in DTYPES.items()
        }
        if device == "cuda":
            calls["tf32"] = partial(in_tf32, partial(matmul, *_matrices(n, torch.float32, device)))
        times = bench.time_interleaved(calls, warmup=3, repeats=sizes.repeats)
        for name, timing in times.items():
            row = dict(n=n, dtype=name, tflops=2 * n**3 / timing.median / 1e12)
            rows.append(row | with_ends("faster", times["fp32"].ratio_interval(timing)))
    return dict(rows=rows)


def _matrices(n: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    rng = torch.Generator(device).manual_seed(0)
    return [torch.randn(n, n, generator=rng, device=device).to(dtype) for _ in range(2)]


def in_tf32(call: Callable) -> object:
    """The call with fp32 matrix products in TF32, which is off in torch unless asked for."""
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return call()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def training_step(device: str, sizes: Sizes) -> dict:
    """A training step in each recipe: bytes of weights, gradients and Adam's state, the step's
    peak, and its time. If the batch does not fit this GPU, the peak is None and there is no time.
    """
    recipes = {name: partial(_step, dtype=dtype) for name, dtype in DTYPES.items()}
    if device == "cuda":
        recipes["tf32"] = lambda *args: in_tf32(partial(_step, *args, dtype=torch.float32))
    rows = []
    for name, step in recipes.items():
        torch.manual_seed(0)
        model = make_model(sizes).to(device)
        optimizer = torch.optim.AdamW(model.parameters())
        stays = 4 * sum(p.nbytes for p in model.parameters())
        for batch_size in sizes.batch_sizes:
            ids = random_ids(model, batch_size).to(device)
            measured = _measure_step(partial(step, model, optimizer, ids), device, sizes.repeats)
            rows.append(dict(recipe=name, batch_size=batch_size, mb_stays=stays / 1e6) | measured)
    return dict(rows=rows)


def make_model(sizes: Sizes) -> Transformer:
    """An untrained decoder of the step's size, 8,192 tokens in its vocabulary."""
    n_layer, d_model, seq_len = sizes.model
    n_head = d_model // HEAD_DIM or 1
    config = ModelConfig(n_layer, n_head, d_model, 4 * d_model, 8192, seq_len, causal=True)
    return Transformer(config)


def random_ids(model: Transformer, batch_size: int) -> torch.Tensor:
    """Texts (B,T) of the model's full length."""
    return torch.randint(model.config.vocab_size, (batch_size, model.config.max_len))


def _measure_step(step: Callable, device: str, repeats: int) -> dict:
    try:
        step()  # Adam's state and the gradients stand from here on
        timing = bench.time_calls(step, warmup=2, repeats=repeats)
        return dict(mb_step=bench.peak_bytes(step, device) / 1e6, ms=1e3 * timing.median)
    except torch.OutOfMemoryError:
        return dict(mb_step=None)


def _step(model: Transformer, optimizer, ids: torch.Tensor, dtype: torch.dtype) -> None:
    """One step under autocast, where `dtype` is not fp32. fp16's scaling takes no memory."""
    with torch.autocast(ids.device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss = F.cross_entropy(model(ids).flatten(0, 1).float(), ids.flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)


@torch.no_grad()
def eager_against_compiled(device: str, sizes: Sizes) -> dict:
    """One block, written out and torch's own, each eager and compiled, over eager written out."""
    d_model, seq_len = sizes.block
    layer, x = block.plain_layer(d_model, seq_len, d_model // HEAD_DIM or 1)
    layer, x = layer.to(device), x.to(device)
    weights = block.weights(layer, seq_len)
    n_head = layer.attention.body.n_head

    def written(x):
        return block.block(block.torch_namespace(), x, weights, n_head)

    torch._dynamo.reset()
    compiled, compiled_layer = (torch.compile(fn, dynamic=False) for fn in (written, layer))
    expected = layer(x)
    for fn in (written, compiled, compiled_layer):
        torch.testing.assert_close(fn(x), expected, atol=2e-4, rtol=1e-3)
    calls = {"written out, compiled": lambda: compiled(x), "torch's own": lambda: layer(x)}
    calls["torch's own, compiled"] = lambda: compiled_layer(x)
    result = bench.compare(lambda: written(x), calls, warmup=3, repeats=sizes.repeats)
    rows = [
        dict(form=name, ms=1e3 * result.timings[name].median) | with_ends("ratio", ratio)
        for name, ratio in result.ratios.items()
    ]
    return dict(rows=rows, ms=1e3 * result.timings["baseline"].median, band=result.band)


def launch_overhead(device: str, sizes: Sizes) -> dict:
    """Chains of small kernels, and the launch model's two constants fitted to them."""
    rows = []
    for n_values in sizes.values:
        x = torch.ones(n_values, device=device)
        calls = {n: fusion.chain(x, n) for n in sizes.chains}
        for n, seconds in fusion.call_seconds(calls, sizes.repeats, seconds=1e-3).items():
            size = dict(n_kernels=n, n_values=n_values, bytes=8 * n_values * n)
            rows.append(size | dict(seconds=seconds))
    model = fusion.fit_launches(rows, queued=device == "cuda")
    return dict(rows=rows, overhead=model.overhead, bandwidth=model.bandwidth)


@torch.no_grad()
def attention_kernels(device: str, sizes: Sizes) -> dict:
    """Attention by length: scores in memory against those fused kernels that this device has."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    rows = []
    for seq_len in sizes.lengths:
        shape = (1, N_HEAD, seq_len, HEAD_DIM)
        q = torch.randn(shape, device=device, dtype=torch.bfloat16)

        def on(backend, q=q):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, q, q)

        calls = {"written out": partial(attention_written_out, q, q, q)}
        fused = {name: partial(on, backend) for name, backend in backends.items()}
        calls |= {name: call for name, call in fused.items() if _runs(call)}
        times = bench.time_interleaved(calls, warmup=2, repeats=sizes.repeats)
        for name, timing in times.items():
            row = dict(seq_len=seq_len, kernel=name, ms=1e3 * timing.median)
            row |= with_ends("ratio", timing.ratio_interval(times["written out"]))
            rows.append(row | dict(mb=bench.peak_bytes(calls[name], device) / 1e6))
    return dict(rows=rows)


def _runs(call: Callable) -> bool:
    """Whether torch has this kernel for this device; it warns and raises if not."""
    with warnings.catch_warnings(action="ignore"), suppress(RuntimeError):
        call()
        return True
    return False


# --- Running ---------------------------------------------------------------------------------

LAUNCHES, PRODUCTS, STEP = "launch overhead", "precision by shape", "training step"
ATTENTION, COMPILED = "attention kernels", "eager against compiled"
PARTS: dict[str, Callable[[str, Sizes], dict]] = {
    LAUNCHES: launch_overhead,
    PRODUCTS: precision_by_shape,
    STEP: training_step,
    ATTENTION: attention_kernels,
    COMPILED: eager_against_compiled,
}


def measure(part: str, seed: int = 0, *, device: str = "cuda", sizes: Sizes | None = None) -> dict:
    """One part by name; without enough memory or a compiler the result is `failed`."""
    try:
        return PARTS[part](device, sizes or Sizes())
    except RuntimeError as error:
        return dict(rows=[], failed=f"{type(error).__name__}: {error}".splitlines()[0][:200])


def run(*, fresh: bool = False) -> dict:
    """Measure what is not recorded for this GPU yet; other machines' records stay."""
    require(torch.cuda.is_available(), "device", "none", "a CUDA GPU")
    properties = torch.cuda.get_device_properties(0)
    settings = dict(gpu=properties.name, gpu_bytes=properties.total_memory, cuda=torch.version.cuda)
    cases = [dict(part=part, seed=0) for part in PARTS]
    return run_cases(NAME, cases, measure, settings=settings, fresh=fresh)


def read_part(part: str) -> dict[str, dict]:
    """{GPU: that part's measurements} for every recorded machine; {} if there is none."""
    require_one_of("part", part, PARTS)
    if not (EXPERIMENTS / f"{NAME}.json").exists():
        return {}
    records = (read_record(NAME, machine) for machine in machines(NAME))
    return {
        record["settings"]["gpu"]: entry
        for record in records
        for entry in record["runs"]
        if entry["part"] == part and "failed" not in entry
    }


def read_launches() -> dict[str, fusion.LaunchModel]:
    """{GPU: launch model} for every recorded machine."""
    return {
        gpu: fusion.LaunchModel(made["overhead"], made["bandwidth"], queued=True)
        for gpu, made in read_part(LAUNCHES).items()
    }


def main() -> None:
    """What `make bench-gpu` runs; prints one line if there is no GPU."""
    if not torch.cuda.is_available():
        print(NO_GPU)
        return
    run()


if __name__ == "__main__":
    main()
