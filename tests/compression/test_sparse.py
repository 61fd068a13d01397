"""Layouts of sparse matrices: the matrix back, torch's CSR, bytes that cross where computed."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from efflab.compression import pruning, sparse


@pytest.mark.parametrize("layout", sparse.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_layout_gives_the_matrix_back(layout, dtype):
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight = weight * pruning.n_m_mask(weight, 2, 4)
    weight[3] = 0
    parts = sparse.to_layout(weight, layout)
    assert torch.equal(sparse.from_layout(parts, layout, (12, 20)), weight)
    assert sparse.layout_bytes(weight, layout) == sum(p.nbytes for p in parts.values())


def test_two_of_four_is_torchs_sparsifier_and_fits_the_hardware_format():
    from torch.ao.pruning import WeightNormSparsifier
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_from_dense_cutlass,
        sparse_semi_structured_to_dense_cutlass,
    )

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32))
    mask = pruning.n_m_mask(net[0].weight, 2, 4)
    weight = (net[0].weight.detach() * mask).half()
    sparsifier = WeightNormSparsifier(
        sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2
    )
    sparsifier.prepare(net, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert torch.equal(net[0].parametrizations.weight[0].mask.bool(), mask)
    packed, places = sparse_semi_structured_from_dense_cutlass(weight)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(packed, places), weight)
    assert packed.nbytes + places.nbytes == sparse.layout_bytes(weight, "2:4")


@pytest.mark.filterwarnings("ignore:Sparse")
def test_csr_is_torchs():
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    weight = weight * pruning.magnitude_mask(weight, 0.8)
    parts, csr = sparse.to_layout(weight, "csr"), weight.to_sparse_csr()
    assert torch.equal(parts["rows"].long(), csr.crow_indices())
    assert torch.equal(parts["columns"].long(), csr.col_indices())
    assert torch.equal(parts["values"], csr.values())


@pytest.mark.parametrize(("layout", "index", "bits"), [("csr", 4, 0), ("bitmap", 0, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_break_even_is_where_the_bytes_cross(layout, index, bits, dtype):
    weight = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0)).to(dtype)
    share = sparse.break_even(weight.element_size(), index, bits)
    for ratio, smaller in ((share - 0.02, False), (share + 0.02, True)):
        masked = weight * pruning.magnitude_mask(weight, ratio)
        assert (sparse.layout_bytes(masked, layout) < weight.nbytes) is smaller


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sparse.to_layout(torch.ones(2, 4), "2:4"), "4 nonzeros of four"),
        (lambda: sparse.to_layout(torch.ones(2, 4), "coo"), "layout='coo'"),
        (lambda: sparse.break_even(0, 1), "value_bytes=0"),
        (lambda: sparse.break_even(4, -1), "index_bytes=-1"),
        (lambda: sparse.break_even(4, 0, -1), "place_bits=-1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class NoOtherFloats(TorchDispatchMode):
    """Inside, no operator may give a float of another type than the weight's."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, tuple | list) else [found]:
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                assert x.dtype == self.dtype, f"{func} makes {x.dtype}"
        return found


@pytest.mark.parametrize("layout", sparse.LAYOUTS)
def test_counts_and_places_never_pass_through_floats(layout):
    weight = torch.eye(12, 20, dtype=torch.float64)
    with NoOtherFloats(torch.float64):
        parts = sparse.to_layout(weight, layout)
        assert torch.equal(sparse.from_layout(parts, layout, (12, 20)), weight)
    assert all(not p.is_floating_point() for name, p in parts.items() if name != "values")


def test_starts_of_rows_are_exact_above_what_float32_counts():
    """2^24 + 4,097 nonzeros, all of them one number in memory."""
    parts = sparse.to_layout(torch.ones(1, 1, dtype=torch.int8).expand(4097, 4097), "csr")
    assert torch.equal(parts["rows"], torch.arange(4098, dtype=torch.int32) * 4097)


def test_more_nonzeros_than_int32_counts_are_refused(monkeypatch):
    monkeypatch.setattr(sparse, "INDEX", torch.int8)
    with pytest.raises(ValueError, match="nonzeros=128: expected at most 127"):
        sparse.to_layout(torch.ones(2, 64), "csr")
    with pytest.raises(ValueError, match="columns=128: expected at most 127"):
        sparse.to_layout(torch.zeros(1, 128), "csr")
