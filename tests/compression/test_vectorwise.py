"""A scale for each token and outliers apart: against the plain INT8 layer and exact arithmetic."""

import pytest
import torch
from torch import nn

from efflab.compression.affine import quantize
from efflab.compression.int8 import Int8Linear, relative_error
from efflab.compression.vectorwise import ByToken, OutliersApart


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(96, 40)


@pytest.fixture
def x():
    """Tokens whose sizes differ, above 0 more than below."""
    rng = torch.Generator().manual_seed(1)
    return torch.randn(2, 12, 96, generator=rng) * torch.rand(2, 12, 1, generator=rng) + 0.5


def test_each_token_has_its_own_affine_grid(linear, x):
    """What two affine grids and exact sums give, the inputs' grid found in each token."""
    values = quantize(x.flatten(0, 1), 8, symmetric=False, axis=0).dequantize().double()
    weight = quantize(linear.weight.detach(), 8, axis=0).dequantize().double()
    expected = (values @ weight.T + linear.bias).float().view(2, 12, 40)
    torch.testing.assert_close(ByToken(linear)(x), expected, rtol=1e-5, atol=1e-5)


def test_a_loud_token_spoils_no_other(linear, x):
    x[0, 0] *= 300
    quiet = linear(x)[1]
    ours, plain = ByToken(linear)(x)[1], Int8Linear(linear)(x)[1]
    assert relative_error(ours, quiet) < 0.02 < relative_error(plain, quiet)
    torch.testing.assert_close(ours, ByToken(linear)(x[1:])[0])  # alone it gets the same


def test_without_outliers_nothing_is_apart(linear, x):
    assert x.abs().max() < 6
    assert torch.equal(OutliersApart(linear)(x), ByToken(linear)(x))


def test_what_stays_below_six_is_rounded_with_the_rest(linear, x):
    x[0, 0, 0] = 5.99
    assert torch.equal(OutliersApart(linear)(x), ByToken(linear)(x))


def test_channels_with_outliers_are_exact(linear, x):
    x[1, 3, 5] = 6.0  # the paper's threshold, reached by one token
    x[..., 70] *= -200
    apart = [5, 70]
    rest = x.clone()
    rest[..., apart] = 0
    expected = ByToken(linear)(rest) + x[..., apart] @ linear.weight[:, apart].T
    torch.testing.assert_close(OutliersApart(linear)(x), expected)
    exact = linear(x)
    assert relative_error(OutliersApart(linear)(x), exact) < 0.001
    assert relative_error(ByToken(linear)(x), exact) > 0.002


def test_a_threshold_below_everything_leaves_a_float_product(linear, x):
    everything = OutliersApart(linear, threshold=1e-6)(x)
    torch.testing.assert_close(everything, linear(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, -6.0])
def test_a_threshold_is_above_0(linear, threshold):
    with pytest.raises(ValueError, match=f"threshold={threshold}: expected a number above 0"):
        OutliersApart(linear, threshold)
