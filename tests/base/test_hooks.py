"""What hooks see of a model, and that none stays."""

import pytest
import torch
from torch import nn

from efflab.base.hooks import linear_layers, watch_inputs, watching


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 2))


def hooks(net):
    return sum(len(m._forward_pre_hooks) for m in net.modules())


def test_each_linear_layers_input_is_seen_as_rows(net):
    seen, x = {}, torch.randn(2, 4, 3, requires_grad=True)
    with watching(net, seen.__setitem__):
        y = net(x)
    assert list(seen) == list(linear_layers(net)) == ["0", "2"]
    assert torch.equal(seen["0"], x.flatten(0, 1))
    assert torch.equal(seen["2"], net[1](net[0](x)).flatten(0, 1))
    assert not seen["0"].requires_grad
    assert y.requires_grad  # looking changes nothing
    assert torch.equal(y, net(x))


def test_any_modules_whole_input_is_seen(net):
    shapes, x = [], torch.randn(2, 4, 3)
    with watch_inputs({"act": net[1]}, lambda name, seen: shapes.append((name, seen.shape))):
        net(x)
        net(x[:1])
    assert shapes == [("act", (2, 4, 5)), ("act", (1, 4, 5))]


def test_no_hook_stays_after_an_error(net):
    def fail(name, x):
        assert hooks(net) == 2
        raise RuntimeError(name)

    with pytest.raises(RuntimeError, match="0"), watching(net, fail):
        net(torch.zeros(1, 3))
    assert hooks(net) == 0


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 3), (2, 4, 3)], ids=str)
def test_an_input_of_any_shape_is_seen_as_rows(net, shape):
    seen, x = {}, torch.randn(shape)
    with watching(net, seen.__setitem__):
        net(x)
    assert torch.equal(seen["0"], x.reshape(-1, 3))
    assert seen["2"].shape == (len(seen["0"]), 5)
