"""Published scaling is arithmetic on its rows, and a model with one constant beside it."""

import re

import pytest

from efflab.cost import num_params
from efflab.distributed import scaling
from efflab.distributed.ring import ring_bytes
from efflab.distributed.scaling import efficiencies, efficiency, fit, left_out, step_seconds

MARGIN = 0.05
"""Fixed before anything was fitted."""


def test_efficiencies_are_arithmetic_on_the_rows():
    rows = efficiencies()
    found = [round(row["efficiency"], 3) for row in rows]
    assert found == [1, 1.009, 0.995, 0.982, 0.969, 0.949, 1, 0.942, 1, 0.779]
    assert rows[5]["efficiency"] == pytest.approx(138294 / 4553 / 32)
    assert rows[9]["efficiency"] == pytest.approx(21298 / 854 / 32)


def test_more_nodes_accumulate_over_fewer_micro_batches():
    assert [row["accumulation"] for row in efficiencies()] == [32, 16, 8, 4, 2, 1, 128, 4, 256, 8]
    for row in efficiencies():
        sequences = row["seconds"] * row["sequences_per_second"]
        micro_batch = scaling.MICRO_BATCH[row["precision"], row["seq_len"]]
        assert sequences == pytest.approx(row["accumulation"] * micro_batch * row["n_devices"])


def test_the_constant_of_a_row_is_fitted_without_it():
    rows = efficiencies()
    scored = left_out()
    assert [row["nodes"] for row in scored] == [2, 4, 8, 16, 32, 32, 32]
    for row in scored:
        others = [
            other for other in rows if other["sequences_per_second"] != row["sequences_per_second"]
        ]
        assert len(others) == len(rows) - 1
        assert row["predicted"] == efficiency(row, fit(others))


def test_mixed_precision_is_predicted_and_tf32_is_not():
    """The model's bytes double with TF32, and that explains a fifth of what its row lost."""
    for row in left_out():
        if row["precision"] == "mixed":
            assert abs(row["error"]) < MARGIN
        else:
            assert row["error"] > 2 * MARGIN


def test_the_model_says_more_than_that_all_scale_alike():
    """Beside each row predicted by the others' mean efficiency, mixed precision alone."""
    mixed = [row for row in left_out() if row["precision"] == "mixed"]
    by_model = sum(abs(row["error"]) for row in mixed)
    total = sum(row["efficiency"] for row in mixed)
    means = [(total - row["efficiency"]) / (len(mixed) - 1) for row in mixed]
    by_mean = sum(abs(m - row["efficiency"]) for m, row in zip(means, mixed, strict=True))
    assert by_model < by_mean / 2


def test_the_fitted_wire_lies_between_one_card_and_a_node_s_eight():
    assert 25e9 < 1 / fit(efficiencies()) < 8 * 25e9


def test_a_row_that_scales_better_than_linearly_gives_no_negative_wire():
    assert fit(efficiencies()[:2]) == 0.0


def test_summing_after_every_micro_batch_would_cost_the_most_where_there_are_many():
    constant = fit(efficiencies())
    for row in left_out():
        once, often = (efficiency(row, constant, every_micro_batch=e) for e in (False, True))
        assert often < once if row["accumulation"] > 1 else often == once


def test_a_step_by_hand():
    sizes = dict(device_rate=10, gradient_bytes=1000, seconds_per_byte=0.01)
    assert step_seconds(1, 80, **sizes) == 8
    assert step_seconds(4, 80, **sizes) == 2 + ring_bytes(1000, 4) * 0.01
    assert step_seconds(4, 80, n_sums=3, **sizes) == 2 + 3 * ring_bytes(1000, 4) * 0.01
    shares = [80 / n / 10 / step_seconds(n, 80, **sizes) for n in (1, 2, 4, 8)]
    assert shares == sorted(shares, reverse=True)
    assert efficiencies()[0]["gradient_bytes"] == 2 * num_params(scaling.PRESETS["bert-large"])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (dict(n_devices=0), "n_devices=0: expected"),
        (dict(global_batch=0), "global_batch=0: expected"),
        (dict(n_sums=0), "n_sums=0: expected"),
        (dict(device_rate=0), "device_rate=0: expected a positive number"),
        (dict(gradient_bytes=-1), "gradient_bytes=-1: expected a number of at least 0"),
        (dict(seconds_per_byte=-1), "seconds_per_byte=-1: expected a number of at least 0"),
    ],
)
def test_bad_arguments(changes, error):
    sizes = dict(n_devices=2, global_batch=8, device_rate=1, gradient_bytes=1, seconds_per_byte=0)
    with pytest.raises(ValueError, match=re.escape(error)):
        step_seconds(**sizes | changes)


def test_a_fit_needs_a_row_of_several_nodes():
    with pytest.raises(ValueError, match="rows=0: expected at least one of several nodes"):
        fit(efficiencies()[:1])
