"""GPTQ: against its slow reference, against least squares, against NNCF's, and what it refuses."""

import time

import numpy as np
import pytest
import torch

from efflab.base.privacy import load
from efflab.compression.affine import from_rows, quantize, to_rows
from efflab.compression.gptq import (
    add_damping,
    gptq,
    gptq_hessian,
    hessian,
    inverse_factor,
    output_error,
    sweep,
)


def problem(n_out=12, n_in=20, n=64, seed=0):
    """A weight and correlated inputs."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(n_in, n_in, generator=rng)
    inputs = torch.randn(n, n_in, generator=rng) @ mix / n_in**0.5
    return torch.randn(n_out, n_in, generator=rng), inputs


WEIGHT, INPUTS = problem()


def each(values, q):
    """A number a row of the grid -> one a weight."""
    rows = to_rows(torch.zeros(q.shape), q.axis, q.group_size)
    return from_rows(values.double()[:, None].expand_as(rows), q.shape, q.axis, q.group_size)


def reference(weight, inputs, grid, damp, order=None):
    """Optimal brain quantization in a fixed order, equations 2 and 3 of the paper.

    One weight at a time for every row, the inverse Hessian kept whole and eliminated column by
    column. `grid`: the quantized tensor whose scales are used.
    """
    x = inputs.double()
    H = 2 * x.T @ x
    H += damp * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)
    inverse = torch.linalg.inv(H)
    symmetric = grid.zero_point is None
    high = 2 ** (grid.bits - 1) - 1 if symmetric else 2**grid.bits - 1
    scale = each(grid.scale, grid)
    zero = torch.zeros_like(scale) if symmetric else each(grid.zero_point, grid)
    w, codes = weight.double().clone(), torch.zeros(weight.shape, dtype=torch.int32)
    for j in range(weight.shape[1]) if order is None else order:
        code = ((w[:, j] / scale[:, j]).round() + zero[:, j]).clamp(-high if symmetric else 0, high)
        codes[:, j] = code
        error = (w[:, j] - scale[:, j] * (code - zero[:, j])) / inverse[j, j]
        w -= torch.outer(error, inverse[j])
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [None, 5, 8, 64])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equals_the_column_by_column_reference(bits, group_size, symmetric):
    layout = dict(group_size=group_size, axis=0 if group_size is None else None)
    q = gptq(WEIGHT, INPUTS, bits, group_size=group_size, symmetric=symmetric)
    nearest = quantize(WEIGHT, bits, symmetric=symmetric, **layout)
    assert torch.equal(q.scale, nearest.scale)
    assert q.nbytes == nearest.nbytes
    assert torch.equal(q.codes(), reference(WEIGHT, INPUTS, nearest, 0.01))


@pytest.mark.parametrize("seed", range(4))
def test_activation_order_equals_the_reference_in_that_order(seed):
    weight, inputs = problem(seed=seed)
    order = inputs.square().sum(0).argsort(descending=True).tolist()
    for group_size in (None, 8):
        q = gptq(weight, inputs, 3, group_size=group_size, act_order=True)
        assert torch.equal(q.codes(), reference(weight, inputs, q, 0.01, order))


@pytest.mark.parametrize("block_size", [1, 3, 7, 20, 128])
def test_block_size_changes_nothing(block_size):
    one = gptq(WEIGHT, INPUTS, 3, block_size=block_size)
    assert torch.equal(one.codes(), gptq(WEIGHT, INPUTS, 3).codes())


@pytest.mark.parametrize("stop", [1, 6, 13])
def test_free_columns_are_the_least_squares_best(stop):
    """After every step the columns not yet rounded make up for the others as well as can be."""
    q = quantize(WEIGHT, 3, symmetric=False, axis=0)
    scale, zero = each(q.scale, q), each(q.zero_point, q)
    factor = inverse_factor(add_damping(hessian(INPUTS), 0.0))
    values, _ = sweep(WEIGHT, scale, zero, 3, factor, block_size=4, stop=stop)
    x, w = INPUTS.double(), WEIGHT.double()
    left = x @ (w - torch.cat([values[:, :stop], 0 * w[:, stop:]], 1)).T
    best = torch.linalg.lstsq(x[:, stop:], left).solution.T
    torch.testing.assert_close(values[:, stop:], best)


def test_factor_is_the_inverse_hessians_cholesky_factor():
    H = add_damping(hessian(INPUTS), 0.01)
    theirs = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    torch.testing.assert_close(inverse_factor(H), theirs)


def test_one_row_two_columns_by_hand():
    """Inputs almost alike: what the first column loses, the second takes over."""
    inputs = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 1.0]])
    weight = torch.tensor([[0.4, 0.4, 1.0]])
    q = gptq(weight, inputs, 2, damp=0.0, symmetric=True)  # the levels are -1, 0, 1
    assert quantize(weight, 2, axis=0).codes().tolist() == [[0, 0, 1]]
    assert q.codes().tolist() == [[0, 1, 1]]  # 0.4 + 0.4 is nearer to 1 than to 0


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group_size", [None, 8])
def test_output_error_falls_below_rounding_to_nearest(bits, group_size):
    weight, inputs = problem(64, 64, 512)
    H = hessian(inputs)
    layout = dict(group_size=group_size, axis=0 if group_size is None else None)
    nearest = output_error(weight, quantize(weight, bits, symmetric=False, **layout), H)
    assert (
        output_error(weight, gptq(weight, inputs, bits, group_size=group_size), H) < 0.8 * nearest
    )


def test_output_error_is_that_of_the_outputs():
    q = gptq(WEIGHT, INPUTS, 3)
    exact, ours = INPUTS @ WEIGHT.T, INPUTS @ q.dequantize().T
    share = ((exact - ours).square().sum() / exact.square().sum()).item()
    assert output_error(WEIGHT, q, hessian(INPUTS)) == pytest.approx(share, rel=1e-4)


def test_uncorrelated_inputs_leave_nothing_to_push():
    """A diagonal Hessian: GPTQ is rounding to nearest."""
    q = gptq(WEIGHT, torch.eye(20).repeat(2, 1), 3)
    assert torch.equal(q.codes(), quantize(WEIGHT, 3, symmetric=False, axis=0).codes())


def test_hessians_of_batches_add_up():
    total = sum(hessian(part) for part in INPUTS.split(7))
    torch.testing.assert_close(total, hessian(INPUTS))
    assert torch.equal(gptq_hessian(WEIGHT, total, 3).codes(), gptq(WEIGHT, INPUTS, 3).codes())
    # a mean, or the second derivative with its factor 2, gives the same
    assert torch.equal(gptq_hessian(WEIGHT, total / 32, 3).codes(), gptq(WEIGHT, INPUTS, 3).codes())


@pytest.mark.parametrize("damp", [0.0, 0.01])
@pytest.mark.parametrize("act_order", [False, True])
def test_a_dead_input_is_rounded_to_nearest_and_disturbs_nobody(damp, act_order):
    dead, alive = 7, [j for j in range(20) if j != 7]
    inputs = INPUTS.clone()
    inputs[:, dead] = 0
    weight = WEIGHT.clone()
    weight[:, dead] = weight[:, dead].clamp(-0.5, 0.5)  # it sets no row's range
    q = gptq(weight, inputs, 3, damp=damp, act_order=act_order).codes()
    nearest = quantize(weight, 3, symmetric=False, axis=0).codes()
    assert torch.equal(q[:, dead], nearest[:, dead])
    scaled = damp * 19 / 20  # the mean diagonal has the dead zero in it
    rest = gptq(weight[:, alive], inputs[:, alive], 3, damp=scaled, act_order=act_order).codes()
    assert torch.equal(q[:, alive], rest)


def test_all_inputs_dead_is_rounding_to_nearest():
    q = gptq(WEIGHT, torch.zeros(5, 20), 4)
    assert torch.equal(q.codes(), quantize(WEIGHT, 4, symmetric=False, axis=0).codes())


def test_too_few_samples_need_damping():
    few = INPUTS[:10]
    with pytest.raises(ValueError, match=r"damp=0\.0: .* Hessian is singular"):
        gptq(WEIGHT, few, 4, damp=0.0)
    with pytest.raises(ValueError, match=r"damp=0: .* Hessian is singular"):
        gptq(WEIGHT, few, 4, damp=0)
    assert gptq(WEIGHT, few, 4).dequantize().isfinite().all()


def test_few_samples_fit_themselves_better_than_others():
    weight, inputs = problem(64, 64, 1024)
    seen, other = inputs[:48], hessian(inputs[512:])
    q = gptq(weight, seen, 3)
    assert output_error(weight, q, hessian(seen)) < 0.5 * output_error(weight, q, other)
    more = gptq(weight, inputs[:512], 3)
    assert output_error(weight, more, other) < output_error(weight, q, other)


def test_much_damping_is_rounding_to_nearest():
    q = gptq(WEIGHT, INPUTS, 3, damp=1e9)
    assert torch.equal(q.codes(), quantize(WEIGHT, 3, symmetric=False, axis=0).codes())


def test_constant_and_zero_weights_survive():
    weight = torch.zeros(3, 20)
    weight[1] = 0.5
    q = gptq(weight, INPUTS, 4)
    torch.testing.assert_close(q.dequantize(), weight)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(kind):
    weight = WEIGHT.half().bfloat16().to(kind)
    q = gptq(weight, INPUTS.to(kind), 4)
    assert torch.equal(q.scale, quantize(weight, 4, symmetric=False, axis=0).scale)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(bits=1), "bits=1: expected an int of at least 2"),
        (dict(bits=17), "bits=17: expected 2 to 16"),
        (dict(group_size=0), "group_size=0: expected an int of at least 1"),
        (dict(damp=-0.1), r"damp=-0\.1: expected a number of at least 0"),
        (dict(damp=float("nan")), "damp=nan"),
        (dict(damp=None), "damp=None"),
        (dict(block_size=0), "block_size=0"),
        (dict(act_order=1), "act_order=1: expected True or False"),
        (dict(symmetric="no"), "symmetric='no'"),
        (dict(weight=torch.randn(20)), r"weight\.shape=\(20,\): .*\(out, in\)"),
        (dict(weight=torch.zeros(0, 20)), r"weight\.shape=\(0, 20\)"),
        (dict(weight=torch.ones(2, 20, dtype=torch.int32)), "weight.dtype=torch.int32"),
        (dict(weight=torch.full((2, 20), torch.inf)), "weight='inf or nan inside'"),
        (dict(inputs=INPUTS[0]), r"inputs\.shape=\(20,\): expected two dimensions \(n, in\)"),
        (dict(inputs=INPUTS[:, :19]), r"inputs\.shape=\(64, 19\): expected \(n, 20\)"),
        (dict(inputs=INPUTS[:0]), r"inputs\.shape=\(0, 20\): expected at least one sample"),
        (dict(inputs=INPUTS * torch.nan), "inputs='inf or nan inside'"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = dict(weight=WEIGHT, inputs=INPUTS, bits=4) | change
    with pytest.raises(ValueError, match=message):
        gptq(**arguments)


def test_a_hessian_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"hessian\.shape=\(19, 19\): expected \(20, 20\)"):
        gptq_hessian(WEIGHT, torch.eye(19), 4)
    with pytest.raises(ValueError, match="hessian='inf or nan inside'"):
        gptq_hessian(WEIGHT, torch.eye(20) * torch.inf, 4)
    with pytest.raises(TypeError, match=r"bits=3\.5"):
        gptq_hessian(WEIGHT, torch.eye(20), 3.5)


def test_a_layer_of_1024_by_1024_takes_seconds():
    weight, inputs = problem(1024, 1024, 1024)
    H = hessian(inputs)
    start = time.process_time()
    gptq_hessian(weight, H, 4)
    assert time.process_time() - start < 10  # one to two on one idle core


# --- Others' implementations and figures ------------------------------------------------------


def test_agrees_with_nncf():
    """NNCF's GPTQ of an OpenVINO matrix product, a scale for each row, 4 bits asymmetric."""
    nncf, ov = load("nncf"), load("openvino")
    op, advanced = ov.opset13, load("nncf.quantization.advanced_parameters")
    weight, inputs = problem(48, 64, 256)
    x = op.parameter([-1, 64], np.float32)
    product = op.matmul(x, op.constant(weight.numpy()), False, True)
    options = advanced.AdvancedGPTQParameters(damp_percent=0.1, block_size=16, subset_size=1)
    compressed = nncf.compress_weights(
        ov.Model([op.result(product)], [x]),
        mode=nncf.CompressWeightsMode.INT4_ASYM,
        group_size=-1,
        all_layers=True,
        gptq=True,
        dataset=nncf.Dataset([inputs.numpy()]),
        advanced_parameters=nncf.AdvancedCompressionParameters(gptq_params=options),
    )
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    theirs = ov.Core().compile_model(compressed, "CPU", precise)(np.eye(64, dtype=np.float32))[0].T
    ours = gptq(weight, inputs, 4, damp=0.1)

    def apart(q):  # share of weights at least half a step from theirs
        return ((q.dequantize() - torch.tensor(theirs)).abs() > q.scale[:, None] / 2).float().mean()

    # they keep scales in 16 bits and work in fp32: a value at a border may fall the other way
    assert apart(ours) < 0.01
    assert apart(quantize(weight, 4, symmetric=False, axis=0)) > 0.1


@pytest.mark.parametrize("options", [{}, {"act_order": True}, {"group_size": 4}], ids=str)
@pytest.mark.parametrize("dead", [[], [7], list(range(1, 20))])
def test_the_unit_of_the_inputs_decides_no_code(dead, options):
    inputs = INPUTS.clone()
    inputs[:, dead] = 0
    expected = gptq(WEIGHT, inputs, 4, **options).codes()
    for power in (-60, -34, -20, 20, 34, 60):
        assert torch.equal(gptq(WEIGHT, inputs * 2.0**power, 4, **options).codes(), expected)


def test_values_that_float32_or_a_sum_of_squares_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="weight='inf or nan inside'"):
        gptq(WEIGHT.double() * 1e300, INPUTS, 4)
    with pytest.raises(ValueError, match="inputs='inf or nan inside'"):
        gptq(WEIGHT, INPUTS.double() * 1e200, 4)
