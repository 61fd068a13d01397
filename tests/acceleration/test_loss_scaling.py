"""Our scaler against torch.amp.GradScaler, step by step, through overflows and growth."""

import pytest
import torch

from efflab.acceleration.loss_scaling import LossScaler

OVERFLOWS = (0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0)


def test_the_same_scales_steps_and_weights_as_torchs():
    ours = LossScaler(2.0**8, interval=3)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=3)
    a, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    sgd, other = torch.optim.SGD([a], lr=0.1), torch.optim.SGD([b], lr=0.1)
    for step, overflow in enumerate(OVERFLOWS):
        factor = torch.inf if overflow else 1.0 + step
        (a.sum() * factor * ours.scale).backward()
        a.grad.div_(ours.scale)
        finite = bool(a.grad.isfinite().all())
        if finite:
            sgd.step()
        ours.update(finite)
        theirs.scale(b.sum() * factor).backward()
        theirs.step(other)
        theirs.update()
        sgd.zero_grad()
        other.zero_grad()
        assert finite != bool(overflow)
        assert ours.scale == theirs.get_scale(), step
        assert torch.equal(a, b), step
    assert ours.scale == 2.0**8 * 2 / 2 * 2 * 2 / 2 / 2 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(scale=0), "scale=0"),
        (dict(growth=1), "growth=1"),
        (dict(backoff=1.0), "backoff=1.0"),
        (dict(interval=0), "interval=0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LossScaler(**options)
