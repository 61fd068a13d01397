"""The case to advise on, and the baseline's use of each budget.

The baseline: fp32 weights and values (TF32 products on a GPU that has them), one device, one text
at a time for latency, `BATCH` texts per device in training, Adam, fused attention kernels.
"""

from dataclasses import dataclass

from efflab import cost
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES, Device
from efflab.errors import require, require_int, require_one_of

BUDGETS = ("latency", "memory", "training days", "checkpoint", "quality")
"""Milliseconds per text; bytes per device in training; days of training; bytes stored; share of
the quality that is kept."""
BATCH = 8
FP32_BYTES, ADAM_BYTES = 4, 16
"""Bytes per value, and per parameter with gradient and Adam's two moments, in fp32."""
CPUS = {"CPU with VNNI": True, "CPU without VNNI": False}
"""Kinds of CPU on which engines were recorded -> whether they have int8 products."""
GPUS = tuple(
    n for n, d in DEVICES.items() if d.memory_bytes and {"fp32", "fp16"} <= {*d.peak_flops}
)
ALL_DEVICES = (*GPUS, *CPUS)


@dataclass(frozen=True)
class Case:
    """A model by name, `n_devices` of a device, the limiting budget, and the tokens per text.

    `seq_len` None: the model's `max_len`. CPUs are only considered one at a time.
    """

    model: str
    device: str
    budget: str
    n_devices: int = 1
    seq_len: int | None = None

    def __post_init__(self):
        require_one_of("model", self.model, PRESETS)
        require_one_of("device", self.device, ALL_DEVICES)
        require_one_of("budget", self.budget, BUDGETS)
        require_int("n_devices", self.n_devices)
        fits = self.n_devices == 1 or self.device in GPUS
        require(fits, "n_devices", self.n_devices, f"1 with a {self.device}")
        longest = self.config.max_len
        if self.seq_len is not None:
            require_int("seq_len", self.seq_len)
            require(self.seq_len <= longest, "seq_len", self.seq_len, f"at most max_len={longest}")

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return PRESETS[self.model]

    @property
    def gpu(self) -> Device | None:
        """The device's peaks; None for a CPU, for which only records are used."""
        return DEVICES[self.device] if self.device in GPUS else None

    @property
    def tokens(self) -> int:
        """Tokens of a text."""
        return self.seq_len or self.config.max_len

    @property
    def flops(self) -> int:
        """FLOPs of one text."""
        return cost.forward_flops(self.config, self.tokens)

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
        """The type of the baseline's products."""
        has = self.gpu is not None and "tf32" in self.gpu.peak_flops
        return "tf32" if has else "fp32"

    def training_bytes(
        self, n_params: float | None = None, config: ModelConfig | None = None, **options
    ) -> float:
        """Bytes per device of a training step: weights, gradients, Adam, the layers' activations.

        `options`: those of `cost.activation_bytes`.
        """
        options = dict(value_bytes=FP32_BYTES, fused_attention=True, dropout=False) | options
        config = config or self.config
        activations = cost.activation_bytes(config, self.tokens, BATCH, **options)
        return ADAM_BYTES * (n_params or cost.num_params(config)) + activations
