"""What is refused of tensors and batches, and that each message names what it refuses."""

import pytest
import torch
from torch import nn

from efflab.compression import affine, calibration, gptq, int8, openvino, packed, pruning, sparse
from efflab.compression.values import (
    finite_hessian,
    require_broadcast,
    require_each,
    require_magnitudes,
    require_whole,
)
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.tensors import Ids

IDS = torch.ones(1, 4, dtype=torch.long)


def test_batches_are_checked_as_they_come_and_a_list_counts_as_a_tuple():
    assert list(require_each("batches", [IDS], Ids)) == [IDS]
    assert list(require_each("batches", iter([[1, 2]]), tuple[int, int])) == [(1, 2)]
    found = require_each("batches", [IDS, None], Ids)
    assert next(found) is IDS
    with pytest.raises(TypeError, match=r"batches\[1\]=None"):
        next(found)
    with pytest.raises(ValueError, match=r"batches=\[\]: expected at least one batch"):
        list(require_each("batches", iter([]), Ids))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 1), (2, 3)])
def test_what_broadcasts_is_what_torch_broadcasts_to_the_same_shape(shape):
    require_broadcast("scale", torch.ones(shape), (2, 3))
    assert (torch.ones(shape) + torch.ones(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 2, 3), (2, 0)])
def test_what_does_not_broadcast_or_makes_it_larger_is_refused(shape):
    with pytest.raises(ValueError, match=r"scale\.shape"):
        require_broadcast("scale", torch.ones(shape), (2, 3))


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([0.5]),
        torch.tensor([torch.nan]),
        torch.tensor([torch.inf]),
        torch.tensor([16]),
        torch.tensor([-1]),
        torch.tensor([200], dtype=torch.uint8),
    ],
)
def test_whole_numbers_of_a_range(values):
    with pytest.raises(ValueError, match="codes='another inside': expected whole numbers from 0"):
        require_whole("codes", values, 0, 15)
    require_whole("codes", torch.tensor([0.0, 15.0]), 0, 15)
    require_whole("codes", torch.tensor([15], dtype=torch.uint16), 0, 15)


def test_magnitudes_and_hessians():
    with pytest.raises(ValueError, match="peaks='a negative one inside'"):
        require_magnitudes("peaks", torch.tensor([1.0, -1.0]))
    assert finite_hessian("H", torch.eye(2).half()).dtype == torch.float64
    for bad in (torch.ones(2, 3), torch.zeros(0, 0), torch.eye(2) / 0):
        with pytest.raises(ValueError, match=r"^H[.=]"):
            finite_hessian("H", bad)


NET = nn.Sequential(nn.Linear(4, 4))
CSR = sparse.to_layout(torch.eye(4), "csr")
FOURS = sparse.to_layout(torch.eye(4), "2:4")
INT32 = torch.int32


def read(layout="csr", shape=(4, 4), **changes):
    parts = CSR if layout == "csr" else sparse.to_layout(torch.eye(4), layout)
    return lambda: sparse.from_layout(parts | changes, layout, shape)


def column_order(*columns):
    parts = {"rows": torch.tensor([0, 2], dtype=INT32), "values": torch.ones(2)}
    return lambda: sparse.from_layout(
        parts | {"columns": torch.tensor(columns, dtype=INT32)}, "csr", (1, 4)
    )


def quantized(**changes):
    parts = dict(packed=torch.ones(8, dtype=torch.uint8), scale=torch.ones(4), zero_point=None)
    return lambda: affine.QuantizedTensor(**parts | dict(bits=4, shape=(4, 4), axis=0) | changes)


REFUSED = {
    "codes beyond the bits": (lambda: affine.pack(torch.tensor([16]), 4), "values="),
    "negative codes": (lambda: affine.pack(torch.tensor([-1]), 4), "values="),
    "too few bytes": (
        lambda: affine.unpack(torch.ones(1, dtype=torch.uint8), 4, 3),
        r"packed\.shape",
    ),
    "more numbers than memory": (
        lambda: affine.unpack(torch.ones(1, dtype=torch.uint8), 4, 10**12),
        r"packed\.shape",
    ),
    "codes of another grid": (
        lambda: affine.QuantizedTensor.from_codes(torch.tensor([8]), torch.ones(1), None, 4),
        "codes=",
    ),
    "a zero point that a byte would wrap": (
        lambda: affine.QuantizedTensor.from_codes(
            torch.tensor([8]), torch.ones(1), torch.tensor([300]), 8
        ),
        "zero_point=",
    ),
    "packed of another size": (quantized(bits=8), r"packed\.shape"),
    "packed in wider numbers": (quantized(packed=torch.ones(8, dtype=INT32)), r"packed\.dtype"),
    "too few scales": (quantized(scale=torch.ones(3)), r"scale\.shape"),
    "a scale that is nan": (quantized(scale=torch.ones(4) * torch.nan), "scale="),
    "too few zero points": (
        quantized(zero_point=torch.ones(1, dtype=torch.uint8)),
        r"zero_point\.shape",
    ),
    "a zero point beyond the bits": (
        quantized(zero_point=torch.full((4,), 16, dtype=torch.uint8)),
        "zero_point=",
    ),
    "groups of a number": (
        lambda: affine.quantize(torch.tensor(1.0), 4, group_size=2),
        "group_size=2",
    ),
    "nan on a grid": (
        lambda: affine.round_to_grid(torch.tensor([torch.nan]), torch.ones(1), None, 4),
        "x=",
    ),
    "rows of another tensor": (
        lambda: affine.from_rows(torch.ones(2, 2), (3, 2), 0, None),
        r"rows\.shape",
    ),
    "a hessian that is nan": (
        lambda: gptq.output_error(torch.eye(2), torch.eye(2), torch.eye(2) / 0),
        "hessian=",
    ),
    "a share of nothing": (
        lambda: gptq.output_error(torch.zeros(2, 2), torch.eye(2), torch.eye(2)),
        "weight=",
    ),
    "columns that are not there": (
        lambda: gptq.sweep(torch.eye(2), torch.ones(2, 2), None, 4, torch.eye(2), stop=3),
        "stop=3",
    ),
    "no calibration to fit to": (
        lambda: calibration.quantize_by("gptq", NET, 4, None),
        "batches=None",
    ),
    "more tokens than memory": (lambda: calibration.calibration(10**12), "n_tokens="),
    "a weight that is not there": (
        lambda: packed.model_bytes(NET, {"other": quantized()()}),
        "quantized='other'",
    ),
    "a weight of another shape": (
        lambda: packed.model_bytes(NET, {"0.bias": quantized()()}),
        r"quantized\['0\.bias'\]\.shape",
    ),
    "a product of other widths": (
        lambda: int8.int_matmul(*[torch.ones(2, 3, dtype=torch.int8)] * 2),
        r"b\.shape",
    ),
    "a product of wide numbers": (
        lambda: int8.int_matmul(*[torch.ones(2, 2, dtype=INT32)] * 2),
        r"a\.dtype",
    ),
    "peaks of another layer": (
        lambda: int8.smoothing(torch.ones(3), torch.ones(2, 2)),
        r"peaks\.shape",
    ),
    "division by 0": (lambda: int8.Divide(torch.zeros(2)), "factors="),
    "a ratio to nothing": (lambda: int8.outlier_ratio(torch.tensor([0.0, 0.0, 1.0])), "peaks="),
    "an error of nothing": (
        lambda: int8.relative_error(torch.ones(2), torch.zeros(2)),
        "exact=",
    ),
    "an error by broadcasting": (
        lambda: int8.relative_error(torch.ones(2, 2), torch.ones(2)),
        r"approximate\.shape",
    ),
    "a range of nan": (
        lambda: int8.calibrate(NET, NET, [torch.ones(2, 4) * torch.nan]),
        "batches.*input of 0",
    ),
    "peaks of nan": (
        lambda: int8.channel_peaks(NET, NET, [torch.ones(2, 4) / 0]),
        "batches.*input of 0",
    ),
    "no module": (lambda: int8.replace_linears(NET, lambda name, linear: None), "make"),
    "nothing to smooth by": (lambda: openvino.smooth_model(NET, []), r"calibration=\[\]"),
    "a mask of numbers": (
        lambda: pruning.apply_masks(NET, {"0.weight": torch.ones(4, 4)}),
        r"masks\['0\.weight'\]",
    ),
    "a mask of another shape": (
        lambda: pruning.apply_masks(NET, {"0.weight": torch.ones(4) > 0}),
        r"masks\['0\.weight'\]",
    ),
    "parts of another layout": (read("bitmap", rows=CSR["rows"]), "parts="),
    "a dense matrix of another shape": (read("dense", (2, 8)), r"parts\['values'\]\.shape"),
    "too many rows": (read(shape=(5, 4)), r"parts\['rows'\]\.shape"),
    "too few columns": (read(shape=(4, 3)), r"parts\['columns'\]"),
    "a matrix beyond memory": (read(shape=(4, 10**12)), "shape="),
    "starts that fall": (
        read(rows=torch.tensor([0, 2, 1, 3, 4], dtype=INT32)),
        r"parts\['rows'\]",
    ),
    "starts in floats": (read(rows=CSR["rows"].float()), r"parts\['rows'\]\.dtype"),
    "columns that fall": (column_order(2, 1), r"parts\['columns'\]"),
    "one column twice": (column_order(2, 2), r"parts\['columns'\]"),
    "bits of another matrix": (read("bitmap", (8, 4)), r"parts\['bits'\]\.shape"),
    "values that no bit asks for": (
        read("bitmap", values=torch.ones(5)),
        r"parts\['values'\]\.shape",
    ),
    "one place twice": (
        read("2:4", places=torch.zeros_like(FOURS["places"])),
        r"parts\['places'\]",
    ),
    "columns not in fours": (read("2:4", (8, 2)), "shape="),
}


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_masked_is_0_whatever_it_was(value):
    net, masks = nn.Sequential(nn.Linear(2, 2)), {"0.weight": torch.eye(2) > 0}
    with torch.no_grad():
        net[0].weight[0, 1] = value
    assert pruning.apply_masks(net, masks)[0].weight[0, 1] == 0
    with pruning.hold_masks(net, masks):
        net(torch.ones(1, 2)).sum().backward()
        assert net[0].parametrizations.weight.original.grad.tolist() == [[1, 0], [0, 1]]
    assert net[0].weight[0, 1] == 0


def test_units_are_counted_no_further_than_they_go():
    with pytest.raises(ValueError, match="head=2: expected 0 to 1 in layer 0"):
        pruning.prune_heads(Transformer(ModelConfig(1, 2, 4, 4, 5, 4)), {0: range(10**12)})


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
