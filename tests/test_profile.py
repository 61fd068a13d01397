"""Profiles of known work: names, FLOPs, bytes and where it ran."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from efflab import cost, profile
from efflab.config import ModelConfig
from efflab.model import Transformer

CONFIG = ModelConfig(2, 4, 64, 256, 512, 128, causal=True)


@pytest.fixture(scope="module")
def model_profile():
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    ids = torch.randint(0, CONFIG.vocab_size, (2, 96))
    parts = {
        "embedding": [model.embedding],
        "attention": [layer.attention for layer in model.layers],
        "feed-forward": [layer.ffn for layer in model.layers],
    }
    with torch.no_grad():
        model(ids)
        return profile.profile(lambda: model(ids), parts)


def test_a_product_has_its_flops_and_bytes():
    a, b = torch.randn(32, 64), torch.randn(64, 16)
    result = profile.profile(lambda: (a @ b).relu())
    rows = {op.name: op for op in result.operators}
    assert set(rows) == {"aten::mm", "aten::relu"}
    assert rows["aten::mm"].flops == 2 * 32 * 64 * 16
    assert rows["aten::mm"].bytes == 4 * (32 * 64 + 64 * 16 + 32 * 16)
    assert rows["aten::mm"].intensity == pytest.approx(65536 / 14336)
    assert rows["aten::relu"].flops == 0
    assert rows["aten::relu"].bytes == 2 * 4 * 32 * 16
    assert all(op.calls == 1 and op.seconds > 0 for op in result.operators)


def test_model_flops_equal_the_formula(model_profile):
    assert model_profile.flops == cost.forward_flops(CONFIG, seq_len=96, batch_size=2)


def test_sdpa_is_counted_on_a_cpu():
    q = torch.randn(1, 2, 64, 16)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    result = profile.profile(lambda: sdpa(q, q, q))
    assert result.flops == 4 * 2 * 64 * 64 * 16


def test_every_operator_belongs_to_its_part(model_profile):
    parts = model_profile.part_seconds()
    assert set(parts) == {"embedding", "attention", "feed-forward", "other"}
    where = {}
    for span in model_profile.spans:
        where.setdefault(span.name, set()).add(span.part)
    assert where["aten::gelu"] == {"feed-forward"}
    assert where["aten::addmm"] == {"attention", "feed-forward"}
    assert where["aten::mm"] == {"other"}  # the logits
    calls = {op.name: op.calls for op in model_profile.operators}
    assert calls["aten::addmm"] == 4 * CONFIG.n_layer


def test_spans_do_not_overlap_and_add_up(model_profile):
    spans = model_profile.spans
    # the profiler's clock ticks in nanoseconds: allow one of rounding
    for earlier, later in pairwise(spans):
        assert earlier.start + earlier.seconds <= later.start + 1e-8
    total = sum(span.seconds for span in spans)
    assert sum(op.seconds for op in model_profile.operators) == pytest.approx(total)
    assert sum(model_profile.part_seconds().values()) == pytest.approx(total)
    assert total <= model_profile.seconds


def test_a_lookup_reads_rows_not_the_table():
    table = nn.Embedding(10_000, 8)
    ids = torch.arange(4)
    with torch.no_grad():
        (op,) = profile.profile(lambda: table(ids)).operators
    assert op.bytes == 2 * 4 * 8 * 4 + 4 * 8


def test_hooks_are_removed_even_after_an_error():
    layer = nn.Linear(4, 4)

    def fail():
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), profile._name_parts({"x": [layer]}):
        fail()
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_allocations_balance_what_is_released():
    changes = profile.allocations(lambda: torch.empty(100) is None)
    assert changes == [400, -400]


def test_profiler_table_names_the_operator_and_is_quiet(capfd):
    x = torch.randn(64, 64)
    table = profile.profiler_table(lambda: x @ x, n_rows=3)
    (row,) = (line for line in table.splitlines() if "aten::mm" in line)
    assert row.split()[-1] == "1"  # calls
    header = table.splitlines()[1]
    assert [name.strip() for name in header.split("  ") if name.strip()] == [
        "Name",
        "Self CPU %",
        "Self CPU",
        "CPU total",
        "# of Calls",
    ]
    assert table.endswith("s")  # "Self CPU time total: ..us"
    assert capfd.readouterr().err == ""
