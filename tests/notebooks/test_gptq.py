"""Notebook 10: its measurements, tables, explorer and exercises."""

from itertools import product
from math import log

import numpy as np
import pytest
import torch

from efflab import evaluate, lab, points
from efflab.compression.gptq import hessian, output_error
from efflab.estimate import Estimate
from efflab.experiments import gptq_quality as experiment
from efflab.experiments.record import read_record
from efflab_rooms.gptq import exercises, figures, measure

MAPS = ("attention.body.qkv", "attention.body.out", "ffn.body.up", "ffn.body.down")
WEIGHTS = [f"layers.{i}.{m}.weight" for i in range(6) for m in MAPS]


# --- The experiment --------------------------------------------------------------------------


def test_calibration_is_of_the_size_and_kind_asked_for():
    for n in (64, 256, 1024):
        for source in experiment.SOURCES:
            batches = experiment.calibration(n, source)
            assert sum(b.numel() for b in batches) == n
            assert all(0 <= b.min() and b.max() < 2048 for b in batches)
    first, again, other = (experiment.calibration(64, seed=s)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_hessians_of_a_model_are_those_of_its_maps_inputs():
    model = experiment.language_model()[0]
    ids = experiment.calibration(64)
    found = experiment.layer_hessians(model, ids)
    assert list(found) == WEIGHTS
    norm = model.layers[0].attention.norm
    with torch.no_grad():
        inputs = norm(model.embedding(ids[0])).flatten(0, 1)
    torch.testing.assert_close(found[WEIGHTS[0]], hessian(inputs))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_both_methods_quantize_the_same_maps_on_the_same_grid():
    model = experiment.language_model()[0]
    rtn = experiment.quantize_by("rtn", model, 3, 64)
    ours = experiment.quantize_by("gptq", model, 3, 64, experiment.calibration(64))
    assert list(rtn) == list(ours) == WEIGHTS
    for name in WEIGHTS:
        assert torch.equal(rtn[name].scale, ours[name].scale)
        assert not torch.equal(rtn[name].packed, ours[name].packed)


def test_record_is_complete():
    record = measure.record()
    assert {"command", "machine", "versions", "seeds", "date"} <= record.keys()
    grids = {(p["bits"], p["group_size"], p["method"]) for p in record["language"]}
    wanted = set(product(experiment.BITS, experiment.GROUPS, experiment.METHODS))
    assert grids == wanted
    assert [p["n_tokens"] for p in record["sizes"]] == list(experiment.SIZES)
    assert {p["source"] for p in record["sources"]} == set(experiment.SOURCES[1:])
    assert [p["variant"] for p in record["variants"]] == list(experiment.VARIANTS)
    assert len(record["encoder"]) == 16
    assert [p["bits"] for p in record["paired"]] == list(experiment.BITS)
    assert len(record["models"]["stdlib-gpt"]) == 64


def test_recorded_gptq_beats_rounding_to_nearest_where_bits_are_few():
    for bits in (2, 3, 4):
        for group in experiment.GROUPS:
            rtn, ours = (measure.recorded_point(bits, group, m) for m in experiment.METHODS)
            assert ours["bits_per_byte"] < rtn["bits_per_byte"]
            assert ours["layer_error"] < rtn["layer_error"]
            assert ours["nbytes"] == rtn["nbytes"]
    for method in experiment.METHODS:
        assert abs(measure.added_bits(measure.recorded_point(8, None, method))) < 0.005


def test_calibration_seeds_agree_far_closer_than_the_methods_differ():
    values = [p["bits_per_byte"] for p in measure.seeded_points(3)]
    assert len(values) == 3
    gain = measure.recorded_point(3, None, "rtn")["bits_per_byte"] - max(values)
    assert max(values) - min(values) < gain / 4


# --- Tables and figures ----------------------------------------------------------------------


def test_added_losses_are_the_papers_numbers():
    losses = measure.added_losses()
    assert losses["OPT-125M", 4]["rtn"] == pytest.approx(log(37.28 / 27.65))
    ratios = {key: added["gptq"] / added["rtn"] for key, added in losses.items()}
    larger = [ratios[m, 4] for m in ("OPT-125M", "OPT-1.3B", "OPT-175B")]
    assert larger == sorted(larger, reverse=True)  # the part that stays shrinks with the model
    assert all(0 < ratio < 1 for ratio in ratios.values())


@pytest.mark.parametrize(("group", "bits"), [(None, 4), (64, 3)])
def test_bits_per_weight_count_scales(group, bits):
    point = measure.recorded_point(bits, group, "gptq")
    # a row shares 40 bits over its 192 inputs, or 768 in the fourth map of twelve twelfths
    per_row = 40 * (8 / 12 / 192 + 4 / 12 / 768)
    extra = per_row if group is None else 40 / group
    assert measure.bits_per_weight(point) == pytest.approx(bits + extra, rel=1e-3)


def test_every_text_is_in_both_languages(both_languages):
    for figure in (
        figures.frontier(),
        figures.calibration_sizes(),
        figures.crossing(),
        figures.changes(steps=(24, 72), n_rows=4),
        figures.column_errors(n_steps=2),
        figures.damping(damps=(0.01, 1.0)),
    ):
        assert figure.layout.title.text
        assert all(np.isfinite(v) for v in figure.layout.meta.values())
    for name in exercises.EXERCISES:
        lab.check(name, lambda *_: 0)


def test_error_moves_into_free_columns_and_output_gets_better_for_it():
    w = measure.weight(measure.SMALL)
    steps = (24, 72, 120, 168)
    free = [(measure.round_columns(n)[0] - w)[:32, n:].abs().mean() for n in steps]
    assert free == sorted(free)  # what is free has moved further at every step
    corrected, plain = measure.round_columns(192)
    assert (corrected - w).square().mean() > (plain - w).square().mean()
    held_out = measure.layer_hessian(measure.SMALL, "held-out")
    assert output_error(w, corrected, held_out) < 0.5 * output_error(w, plain, held_out)


def test_free_columns_absorb_error_at_every_step():
    errors = measure.column_errors(n_steps=6)
    assert list(errors) == [0, 32, 64, 96, 128, 160, 192]
    assert errors.pop(0) == (0, 0)
    assert all(ours < nearest for ours, nearest in errors.values())


def test_errors_tell_good_calibration_from_bad():
    own, held_out = ({k: e[i] for k, e in measure.calibration_errors().items()} for i in (0, 1))
    assert held_out["much"] < 0.8 * held_out["nearest"] < held_out["nearest"] < held_out["few"]
    assert held_out["much"] < held_out["random"]
    assert held_out["much"] < held_out["asleep"] < held_out["zeroed"]
    assert own["few"] < 0.5 * own["much"]  # it fits the few that it saw


def test_damping_helps_where_data_is_short():
    errors = measure.damping_errors(damps=(0.01, 1.0))
    little, much = errors[256], errors[measure.MOST]
    nearest = measure.held_out_error(measure.WIDE, measure.nearest(measure.WIDE, 3))
    assert little[1] < nearest < little[0]
    assert much[0] < little[1]


def test_recorded_curves_are_the_records_points():
    curves = measure.frontier()
    assert list(curves) == [(m, g) for m in experiment.METHODS for g in (None, 64)]
    for (method, group), curve in curves.items():
        size, added = curve[1]
        point = measure.recorded_point(3, group, method)
        assert size == measure.bits_per_weight(point)
        assert added == measure.added_bits(point)
    sizes = measure.record()["sizes"]
    assert [point["n_tokens"] for point in sizes] == sorted(point["n_tokens"] for point in sizes)
    assert sizes[-1]["own_error"] < sizes[-1]["layer_error"] < sizes[0]["layer_error"]


# --- The whole model -------------------------------------------------------------------------


def test_live_rows_stand_beside_the_record(monkeypatch):
    point = dict(bits_per_byte=1.5, layer_error=0.1)
    monkeypatch.setattr(experiment, "language_quality", lambda _: point)
    monkeypatch.setattr(measure, "quantize_layers", lambda *_: {})
    monkeypatch.setattr(evaluate, "bits_per_byte", lambda *_: Estimate(1.4, 1.4, 1.4))
    rows = measure.live_rows(3, measure.live_points(3))
    assert [r["method"] for r in rows] == ["round to nearest", "GPTQ"]
    assert all(r["bits per byte above fp32, now"] == pytest.approx(0.1) for r in rows)
    assert [r["agrees"] for r in rows] == [False if measure.comparable() else None] * 2


def test_a_repeat_may_be_off_by_what_another_calibration_changes(monkeypatch):
    """Increases of 0.2, 0.3, 0.4 by seed at 3 bits: a deviation of 0.1, half the first's."""
    values = {0: 1.2, 1: 1.3, 2: 1.4}
    runs = [dict(part="full", bits_per_byte=1.0)]
    for seed, value in values.items():
        part = "repeats" if seed else "language"
        case = dict(part=part, bits=3, group_size=None, method="gptq", seed=seed)
        runs.append(case | dict(bits_per_byte=value))
    monkeypatch.setattr(measure, "record", lambda: experiment.by_part(dict(runs=runs)))
    monkeypatch.setattr(measure, "comparable", lambda: True)
    assert measure.spread(0.2, 3) == pytest.approx(0.1)
    assert measure.spread(0.01, 4) == pytest.approx(0.005)  # 4 bits have no seeds here
    assert measure.spread(0.02, 8) == pytest.approx(0.01)  # 8 bits add too little to take shares
    assert measure.spread(0.0, 8) == 1e-4  # what four decimals may hide
    monkeypatch.setattr(measure, "comparable", lambda: False)
    assert measure.spread(0.2, 3) is None


def test_kinds_of_maps_are_the_recorded_maps_taken_apart():
    ratios, record = measure.crossing_ratios(), read_record(measure.crossing.NAME)
    assert record["settings"]["maps"] == WEIGHTS
    runs = [run for run in record["runs"] if run["n_tokens"] == 512]
    kinds = {m.split(".")[-1]: [run["maps"][i::4] for run in runs] for i, m in enumerate(MAPS)}
    assert ratios.keys() == {"all", *kinds}
    for kind, maps in kinds.items():
        assert np.shape(maps) == (5, 6)
        assert ratios[kind][512].mean == pytest.approx(np.mean(maps))
    assert ratios["all"][512].mean == pytest.approx(np.mean([run["ratio"] for run in runs]))


def test_only_wide_maps_cross():
    ratios = measure.crossing_ratios()
    for kind, by_tokens in ratios.items():
        ends = by_tokens[128], by_tokens[4096]
        assert (ends[0].low > 1) == (kind == "down")
        assert ends[1].high < 1
    fig = figures.crossing()
    assert list(fig.data[0].y) == [e.mean for e in ratios["all"].values()]
    assert fig.data[0].error_y.array[0] == pytest.approx(
        ratios["all"][128].high - ratios["all"][128].mean
    )


def test_a_gptq_point_counts_packed_bytes(monkeypatch):
    ours = experiment.quantize_by("rtn", experiment.language_model()[0], 4, 64)
    monkeypatch.setattr(measure, "quantize_layers", lambda *_: ours)
    monkeypatch.setattr(points, "N_WINDOWS", 2)
    point = measure.gptq_point(4, 64, repeats=1)
    n_tables = (2048 + 512) * 192
    low = n_tables + measure.N_LAYER_WEIGHTS * (4 + 40 / 64) / 8
    assert low < point["bytes"] < low + 80_000  # biases, norms, the tables' scales
    assert 0.5 < point["quality"].mean < 4


# --- Explorer, bad values, exercises ----------------------------------------------------------


def test_explorer_finds_the_crossing():
    few = figures.calibration(n_tokens=128, bits=3).layout.meta
    many = figures.calibration(n_tokens=4096, bits=3).layout.meta
    assert few["GPTQ / round to nearest"] > 1 > many["GPTQ / round to nearest"]
    assert few["GPTQ, calibration text (%)"] < many["GPTQ, calibration text (%)"]
    assert few["round to nearest (%)"] == many["round to nearest (%)"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.calibration(n_tokens=8192), "n_tokens=8192: expected at most 4096"),
        (lambda: figures.calibration(bits=1), "bits=1"),
        (lambda: figures.calibration(group_size=7), "group_size=7"),
        (lambda: measure.recorded_point(5, None, "gptq"), r"\(5, None, 'gptq'\)"),
        (lambda: measure.calibration_errors(n_dead=769), "n_dead=769: expected at most 768"),
        (lambda: measure.calibration_errors(few=0), "n_tokens=0"),
        (lambda: experiment.calibration(4), "n_tokens=4"),
        (lambda: experiment.calibration(64, "music"), "source='music'"),
        (lambda: experiment.quantize_by("awq", torch.nn.ReLU(), 4, None), "method='awq'"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def damped_hessian(inputs, damp):
    H = inputs.T @ inputs
    return H + damp * H.diagonal().mean() * torch.eye(len(H))


def round_row(row, inverse, eliminate=True):
    row, inverse = row.clone(), inverse.clone()
    for i in range(len(row)):
        row -= (row[i] - row[i].round()) / inverse[i, i] * inverse[i]
        if eliminate:
            inverse -= torch.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return row


def test_a_row_by_hand_is_gptqs():
    """What section 2 says of its two inputs, and the notebook's own function on them."""
    inputs = torch.tensor([[1.0, 1.0], [0.0, 0.1]], dtype=torch.float64)
    weight = torch.tensor([0.4, 0.4], dtype=torch.float64)
    inverse = torch.linalg.inv(inputs.T @ inputs)
    assert inverse.flatten().tolist() == pytest.approx([101, -100, -100, 100])
    assert (weight - 0.4 / inverse[0, 0] * inverse[0])[1].item() == pytest.approx(0.796, abs=5e-4)
    assert round_row(weight, inverse).tolist() == pytest.approx([0, 1], abs=1e-9)


ANSWERS = {
    "10-1": round_row,
    "10-2": damped_hessian,
    "10-3": lambda weight, inputs: inputs.abs().mean(0).clamp(min=1e-4) ** 0.5,
}
WRONG = {
    "10-1": lambda row, inverse: round_row(row, inverse, eliminate=False),
    "10-2": lambda inputs, damp: inputs.T @ inputs + damp * torch.eye(inputs.shape[1]),
    "10-3": lambda weight, inputs: inputs.abs().mean(0).clamp(min=1e-4),
}


def test_factors_leave_what_the_text_says():
    inputs = measure.layer_inputs(measure.WIDE)
    assert exercises.error_share(torch.ones(768)) == pytest.approx(100)
    assert exercises.error_share(ANSWERS["10-3"](None, inputs)) == pytest.approx(95, abs=1)
    errors = measure.calibration_errors()
    assert 100 * errors["much"][1] / errors["nearest"][1] == pytest.approx(66, abs=1)


def test_factors_have_one_number_a_channel(strict):
    with pytest.raises(AssertionError, match="shape of the factors"):
        lab.check("10-3", lambda weight, inputs: 1 / weight)  # the grid would hold every product


@pytest.mark.parametrize("name", ANSWERS)
def test_exercises_take_right_answers_and_refuse_wrong_ones(name, strict):
    lab.check(name, ANSWERS[name])
    with pytest.raises(AssertionError):
        lab.check(name, WRONG[name])
