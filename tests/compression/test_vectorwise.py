"""A scale for each token and outliers apart: against the plain INT8 layer and exact arithmetic."""

import importlib
import inspect
import pkgutil
from copy import deepcopy

import pytest
import torch
from torch import nn

from efflab import compression
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
    with pytest.raises(ValueError, match=f"threshold={threshold}: expected a positive number"):
        OutliersApart(linear, threshold)


# --- Whatever stands in for nn.Linear ---------------------------------------------------------


def stand_ins():
    """Name -> each layer of the chapter that is made of a linear one, static and dynamic."""
    found = {"Int8Linear, static": lambda linear: Int8Linear(linear, (-3.0, 3.0))}
    for info in pkgutil.iter_modules(compression.__path__):
        module = importlib.import_module(f"{compression.__name__}.{info.name}")
        for name, kind in vars(module).items():
            is_layer = isinstance(kind, type) and issubclass(kind, nn.Module)
            if is_layer and "linear" in inspect.signature(kind).parameters:
                found[name] = kind
    return found


SHAPES = [(96,), (1, 96), (0, 96), (2, 0, 96), (0, 3, 96), (2, 3, 96), (2, 1, 2, 2, 96)]


def test_all_of_them_are_found():
    assert set(stand_ins()) >= {"Int8Linear", "Int8Linear, static", "ByToken", "OutliersApart"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", stand_ins())
def test_a_stand_in_takes_every_shape_that_a_linear_layer_takes(linear, name, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    layer, exact = stand_ins()[name](linear), linear(x)
    y = layer(x)
    assert (y.shape, y.dtype) == (exact.shape, exact.dtype)
    assert not x.numel() or relative_error(y, exact) < 0.05
    with pytest.raises(ValueError, match=r"x\.shape=\(2, 48\): expected \(\.\.\., 96\)"):
        layer(torch.zeros(2, 48))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", stand_ins())
def test_a_stand_in_gives_the_type_of_its_input(linear, x, name, dtype):
    layer = stand_ins()[name](deepcopy(linear).to(dtype))
    y = layer(x.to(dtype))
    assert y.dtype == dtype
    assert relative_error(y.float(), linear(x)) < 0.05


@pytest.mark.parametrize("name", stand_ins())
def test_whole_numbers_have_no_gradient_and_none_is_made_up(linear, x, name):
    assert not stand_ins()[name](linear)(x.requires_grad_()).requires_grad


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_tokens_that_are_not_finite_are_refused(linear, x, value):
    x[1, 3, 5] = value
    with pytest.raises(ValueError, match="inf or nan inside"):
        ByToken(linear)(x)
