"""Loss scaling: scale gradients up so that they do not underflow in fp16 (Micikevicius 2018)."""

from dataclasses import dataclass

from efflab.arguments import check_module
from efflab.errors import require
from efflab.rules import Positive, Size


@dataclass
class LossScaler:
    """The rule of `torch.amp.GradScaler`: halve on overflow, double after `interval` good steps.

    The loss is multiplied by `scale` before the backward pass, and the gradients are divided by it
    afterwards; a step whose gradients hold infinity or NaN is skipped. bf16 has fp32's exponent
    range and needs no loss scaling.
    """

    scale: Positive = 2.0**16
    growth: float = 2.0
    backoff: float = 0.5
    interval: Size = 2000
    quiet_steps: int = 0

    def __post_init__(self):
        require(self.growth > 1, "growth", self.growth, "a number above {low}", low=1)
        allowed = "a number between {low} and {high}"
        require(0 < self.backoff < 1, "backoff", self.backoff, allowed, low=0, high=1)

    def update(self, finite: bool) -> None:
        """After each step: grow after `interval` finite ones in a row, back off at overflow."""
        self.quiet_steps = self.quiet_steps + 1 if finite else 0
        if not finite:
            self.scale *= self.backoff
        elif self.quiet_steps == self.interval:
            self.scale, self.quiet_steps = self.scale * self.growth, 0


check_module(__name__)
