"""What an engine is, and what making an INT8 one takes whoever makes it."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from efflab.arguments import check_arguments
from efflab.bench import cpu_features
from efflab.compression import int8
from efflab.errors import require
from efflab.rules import Count
from efflab.tensors import Ids, Mask, Numbers

Batch = tuple[Ids, Mask]
"""ids and attention mask, (B,T) int64 each."""
Inputs = Sequence[tuple[Numbers, ...]]
"""Batches as `encode` takes them: ids alone or ids and mask."""


@check_arguments
@dataclass(frozen=True)
class Engine:
    """A way to run the encoder."""

    name: str
    embed: Callable[[Tensor, Tensor], Tensor]  # ids, mask (B,T) -> unit vectors (B,C)
    nbytes: Count  # of all files that it loads


@check_arguments
class Hidden(nn.Module):
    """`model.encode` as a module's forward, which exporters want: ids, mask -> (B,T,C)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids: Ids, mask: Mask) -> Tensor:
        return self.model.encode(ids, mask)


@check_arguments
def file_bytes(*paths: Path) -> int:
    """Bytes of the files together."""
    return sum(path.stat().st_size for path in paths)


@contextmanager
def quiet():
    """Without the deprecation warnings of torch.ao.quantization, which the text states."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def seven_bits_needed() -> bool:
    """Whether this CPU adds two 8-bit products into 16 bits, where 8-bit codes may not fit.

    VNNI and its like add into 32. One side's codes in 7 bits always fit.
    """
    return not cpu_features()["vnni"]


@check_arguments
def require_batches(calibration: Inputs) -> None:
    """Refuse a calibration that shows nothing."""
    require(len(calibration) > 0, "calibration", calibration, "at least one batch")


@check_arguments
def smoothing_strength(name: str) -> float:
    """`alpha` of `int8.smoothing` for the linear layer of that name.

    The last map of a feed-forward block follows a GELU, whose outliers are far larger than the
    weights': there more has to move.
    """
    return 0.8 if name.endswith("down") else 0.5


@check_arguments
def smoothed_model(model: nn.Module, calibration: Inputs) -> nn.Module:
    """A copy that computes the same with its outliers moved into the weights (`int8.smoothing`)."""
    run = lambda batch: model.encode(*batch)  # noqa: E731
    require_batches(calibration)
    peaks = int8.channel_peaks(run, model, calibration)

    def make(name: str, linear: nn.Linear) -> nn.Module:
        if name not in peaks:
            return linear
        factors = int8.smoothing(peaks[name], linear.weight, smoothing_strength(name))
        return int8.smoothed(linear, factors)

    return int8.replace_linears(model, make)
