"""The case to advise on, and the baseline's use of each budget.

The baseline of an article's budget: fp32 weights and values (TF32 products on a GPU that has them),
one device, one text at a time for latency, `BATCH` texts per device in training, Adam, fused
attention kernels. That of serving (`efflab.advice.serving`) is what a model of today is served in:
weights and cache in 16 bits, one text on one device.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from efflab import cost, families, layers
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES, Device
from efflab.errors import require, require_int, require_one_of
from efflab.structure.pairs import computed_pairs

BUDGETS = ("latency", "memory", "training days", "checkpoint", "quality")
"""Milliseconds per text; bytes per device in training; days of training; bytes stored; share of
the quality that is kept."""
SERVING = ("decode", "context")
"""Seconds of one more token after `tokens` cached ones; tokens whose cache fits beside the
weights."""
BATCH = 8
USUAL_TOKENS = 4096
"""Tokens of a text where none are asked for, if the model takes more."""
FP32_BYTES, ADAM_BYTES = 4, 16
"""Bytes per value, and per parameter with gradient and Adam's two moments, in fp32."""
CPUS = {"CPU with VNNI": True, "CPU without VNNI": False}
"""Kinds of CPU on which engines were recorded -> whether they have int8 products."""
HALF = ("fp16", "bf16")


def is_usable(device: Device) -> bool:
    """Whether its memory is known and it multiplies in 16 bits."""
    return bool(device.memory_bytes) and any(dtype in device.peak_flops for dtype in HALF)


GPUS = tuple(name for name, device in DEVICES.items() if is_usable(device))
ALL_DEVICES = (*GPUS, *CPUS)


def find_device(name: str) -> str:
    """The device so called, or the only one whose name begins so; capitals do not count.

    >>> find_device("h200")
    'H200 SXM'
    """
    begun = [d for d in ALL_DEVICES if d.casefold().startswith(name.casefold())]
    found = [d for d in begun if len(d) == len(name)] or begun
    if len(found) != 1:
        require_one_of("device", name, begun or ALL_DEVICES)
    return found[0]


@dataclass(frozen=True)
class Case:
    """A model, `n_devices` of a device, the limiting budget, and the tokens per text.

    `model`: a preset's name, a config, or what `efflab.config.from_hf` takes; `device`: a name, or
    a `Device` of the caller's own. `seq_len` None: the model's `max_len`, at most `USUAL_TOKENS`.
    CPUs are only considered one at a time.
    """

    model: str | Path | Mapping | ModelConfig
    device: str | Device
    budget: str
    n_devices: int = 1
    seq_len: int | None = None

    def __post_init__(self):
        require_one_of("budget", self.budget, (*BUDGETS, *SERVING))
        if isinstance(self.device, Device):
            known = "a device with a memory and products in 16 bits"
            require(is_usable(self.device), "device", self.device.name, known)
            require(bool(self.device.name.strip()), "device", self.device.name, "a device's name")
        else:
            require_one_of("device", self.device, ALL_DEVICES)
        require_int("n_devices", self.n_devices)
        fits = self.n_devices == 1 or self.gpu is not None
        require(fits, "n_devices", self.n_devices, f"1 with a {self.device}")
        longest = self.config.max_len
        if self.seq_len is not None:
            require_int("seq_len", self.seq_len)
            require(self.seq_len <= longest, "seq_len", self.seq_len, f"at most max_len={longest}")

    @cached_property
    def _shape(self) -> tuple[ModelConfig, str]:
        """The model's shape and its name."""
        if isinstance(self.model, ModelConfig):
            return self.model, "the model"
        if isinstance(self.model, str) and self.model in PRESETS:
            return PRESETS[self.model], self.model
        reading = families.read(self.model)
        return reading.config, reading.name

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self._shape[0]

    @property
    def name(self) -> str:
        """What the model is called."""
        return self._shape[1]

    @property
    def device_name(self) -> str:
        """What the device is called."""
        return self.device.name if isinstance(self.device, Device) else self.device

    @cached_property
    def gpu(self) -> Device | None:
        """The device's peaks, bf16's also as fp16's; None for a CPU, which has records alone."""
        device = self.device if isinstance(self.device, Device) else DEVICES.get(self.device)
        if device is None:
            return None
        half = next(device.peak(dtype) for dtype in HALF if dtype in device.peak_flops)
        return replace(device, peak_flops=device.peak_flops | {"fp16": half})

    @property
    def tokens(self) -> int:
        """Tokens of a text."""
        return self.seq_len or min(self.config.max_len, USUAL_TOKENS)

    @property
    def flops(self) -> int:
        """FLOPs of one text."""
        return self.flops_of(self.config)

    def flops_of(self, config: ModelConfig) -> int:
        """FLOPs of one text by a model of that shape: full scores, a window's blocks alone."""
        parts, pairs = cost.flops_by_part(config, self.tokens), 0
        for window in config.windows:
            reach = (window or 0) - 1 if config.causal else (window or 0) // 2
            every = self.tokens**2
            pairs += every if window is None else computed_pairs(self.tokens, reach, config.causal)
        parts["scores"] = 2 * pairs * layers.score_weights(config)
        return sum(parts.values())

    @property
    def n_params(self) -> int:
        """Parameters of the unchanged model."""
        return cost.num_params(self.config)

    def seconds(
        self, flops: float, n_bytes: float | None = None, dtype: str | None = None
    ) -> float:
        """Seconds per text at least: roofline of FLOPs and the weights' bytes (default fp32).

        On a CPU, FLOPs instead of seconds: only ratios are used there.
        """
        if self.gpu is None:
            return flops
        n_bytes = FP32_BYTES * self.n_params if n_bytes is None else n_bytes
        return cost.roofline_seconds(flops, n_bytes, self.gpu, dtype or self.dtype)

    @property
    def dtype(self) -> str:
        """The type of the baseline's products: TF32, fp32, or 16 bits where there is no other."""
        peaks = {"fp32": 0.0} if self.gpu is None else self.gpu.peak_flops
        return next(dtype for dtype in ("tf32", "fp32", "fp16") if dtype in peaks)

    def training_bytes(self, config: ModelConfig | None = None, **options) -> float:
        """Bytes per device of a training step: weights, gradients, Adam, the layers' activations.

        `options`: those of `cost.activation_bytes`.
        """
        options = dict(value_bytes=FP32_BYTES, fused_attention=True, dropout=False) | options
        config = config or self.config
        activations = cost.activation_bytes(config, self.tokens, BATCH, **options)
        return ADAM_BYTES * cost.num_params(config) + activations
