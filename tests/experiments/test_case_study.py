"""The case study's paths, on a tiny model and a few steps."""

from itertools import pairwise

import pytest
import torch

from efflab import points
from efflab.config import ModelConfig
from efflab.estimate import Estimate
from efflab.experiments import case_study, lighten, record
from efflab.model import Transformer

CONFIG = ModelConfig(2, 4, 32, 64, 2048, 512, causal=True)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


@pytest.fixture(autouse=True)
def small(monkeypatch, tiny):
    """A tiny model in the shipped one's place, short rounds, quality by one window's loss."""
    for cached in (case_study.calibration, case_study.shipped_damage):
        cached.cache_clear()
    monkeypatch.setattr(case_study, "N_STEPS", 4)
    monkeypatch.setattr(case_study, "BATCH_SIZE", 1)
    monkeypatch.setattr(case_study, "N_CALIBRATION", 2)
    monkeypatch.setattr(case_study, "EARLY", 2)
    monkeypatch.setattr(points, "language_model", lambda: tiny)

    def quality(model):
        bits = lighten.loss(model, case_study.calibration())
        return Estimate(bits, bits - 1, bits + 1)

    monkeypatch.setattr(points, "language_quality", quality)
    yield
    for cached in (case_study.calibration, case_study.shipped_damage):
        cached.cache_clear()


# --- Steps and paths -------------------------------------------------------------------------


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_round_repeats_and_depends_on_seed_round_and_precision(tiny):
    def trained(**options):
        case = dict(precision="fp32", seed=0, round_=0) | options
        return weights(case_study.tune(Transformer(CONFIG), **case))

    torch.manual_seed(1)
    state = torch.get_rng_state()

    def again(**options):
        torch.set_rng_state(state)  # the same weights to begin with
        return trained(**options)

    first = again()
    assert torch.equal(again(), first)
    for other in (dict(seed=1), dict(round_=1), dict(precision="bf16 autocast"), dict(stop=2)):
        assert not torch.equal(again(**other), first)


def test_a_share_of_all_neurons_goes_and_every_layer_keeps_one(tiny):
    for ratio, left in ((0.25, 96), (1.0, 2)):
        model = case_study.prune_neurons(tiny, ratio)
        assert sum(layer.ffn.body.up.out_features for layer in model.layers) == left


@pytest.mark.parametrize("path", case_study.PATHS)
def test_a_path_takes_its_steps_in_order(path, tiny):
    before = weights(tiny).clone()
    model, rows = case_study.walk(path, "fp32", 0)
    assert torch.equal(weights(tiny), before)  # the shipped model itself is never trained
    assert tuple(row["step"] for row in rows) == case_study.PATHS[path]
    plain = lighten.forward_flops(tiny, 512)
    flops = [plain, *(row["flops"] for row in rows)]
    for row, was in zip(rows, flops, strict=False):
        saved = (was - row["flops"]) / plain
        if row["step"].startswith("lighten"):
            assert saved >= case_study.SHARE
            assert len(row["windows"]) == len(row["removed"]) == CONFIG.n_layer
        elif row["step"] == "prune":
            assert sum(row["neurons"]) == 96
            assert saved == pytest.approx(32 * 4 * 32 * 512 / plain)
        else:
            assert saved == 0
    if rows:
        assert rows[-1]["flops"] == lighten.forward_flops(model, 512)
        assert rows[-1]["visible_flops"] < rows[-1]["flops"]


def test_what_is_common_to_paths_is_equal():
    """Two paths that begin alike give the same numbers until they part; seeds differ."""
    main, other = (
        case_study.walk(path, "fp32", 0)[1] for path in ("lighten, prune", "prune after INT8")
    )
    assert main[:2] == other[:2]
    assert main[2]["bits"] != other[2]["bits"]
    assert case_study.walk("lighten, prune", "fp32", 1)[1][1]["bits"] != main[1]["bits"]


def test_every_path_ends_in_int8_and_the_main_one_in_every_engine():
    run = case_study.run_path("prune after INT8", "bf16 autocast", 0)
    assert [row["engine"] for row in run["engines"]] == ["OpenVINO INT8"]
    assert run["engines"][0]["bits"] == pytest.approx(run["rows"][-1]["bits"], rel=0.05)
    assert "early" not in run
    run = case_study.run_path(case_study.MAIN, "fp32", 0)
    assert len({row["engine"] for row in run["engines"]}) == 6
    assert run["early"] not in [row["bits"] for row in run["rows"]]


def test_the_widths_say_what_windows_remove_and_heads_must_add():
    found = case_study.run_widths()
    rows = found["widths"]
    assert [row["width"] for row in rows] == [None, *lighten.WIDTHS]
    assert rows[0]["windows_alone"] == 0
    for wider, narrower in pairwise(rows):
        assert wider["windows_alone"] < narrower["windows_alone"]
        assert wider["n_heads"] >= narrower["n_heads"]
    for row in rows:
        assert row["removed"] >= case_study.SHARE
        assert (row["n_heads"] == 0) == (row["windows_alone"] >= case_study.SHARE)
    assert len(found["windows"]) == len(found["heads"]) == CONFIG.n_layer


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="path='backwards'"):
        case_study.walk("backwards", "fp32", 0)
    with pytest.raises(ValueError, match="precision='fp8'"):
        case_study.walk(case_study.MAIN, "fp8", 0)
    with pytest.raises(ValueError, match="seed=-1"):
        case_study.walk(case_study.MAIN, "fp32", -1)


def test_a_killed_run_goes_on_and_repeats_nothing(tmp_path):
    """Each finished case is kept at once; every seed has all paths."""
    ran = []

    def run_one(part, seed, **where):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((part, seed, where.get("path"), where.get("precision")))
        return dict(rows=[])

    options = dict(settings=case_study.settings(), folder=tmp_path, say=lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        record.run_cases("case-study", case_study.cases(), run_one, **options)
    kept = list(ran)

    def rest(part, seed, **where):
        ran.append((part, seed, where.get("path"), where.get("precision")))
        return dict(rows=[])

    done = record.run_cases("case-study", case_study.cases(), rest, **options)
    assert done["complete"]
    assert ran[:3] == kept
    assert len(ran) == len(set(ran)) == len(case_study.cases()) == 23


# --- Reading ---------------------------------------------------------------------------------


def fake(path, seed, bits, int8, precision="bf16 autocast"):
    """A recorded run of a path whose steps end at these bits per byte, INT8 at `int8`."""
    rows = [dict(step=str(i), bits=b, flops=100 - i) for i, b in enumerate(bits)]
    engines = [dict(engine="OpenVINO INT8", bits=int8, nbytes=1)]
    where = dict(part="path", path=path, precision=precision, seed=seed)
    return where | dict(rows=rows, engines=engines)


def test_a_record_is_read_by_path_precision_and_seed():
    main, other = case_study.MAIN, "prune, lighten"
    runs = [dict(part="widths", seed=0), fake("as shipped", 0, [], 1.0, "fp32")]
    runs += [fake(main, s, [1.2 + s / 10, 1.1], 1.15 + s / 100) for s in (0, 1)]
    runs += [fake(main, 0, [9, 9], 9, "fp32")]
    runs += [fake(other, s, [1.3, 1.2], 1.25 + s / 50) for s in (0, 1, 2)]
    experiment = dict(runs=runs)
    ours = case_study.paths(experiment, main)
    assert sorted(ours) == [0, 1]
    assert case_study.paths(experiment, main, "fp32")[0]["rows"][0]["bits"] == 9
    assert list(case_study.paths(experiment, "as shipped")) == [0]
    assert case_study.end_bits(ours[1], None) == 1.1
    assert case_study.waterfall(ours) == [
        dict(step="0", bits=pytest.approx(1.25), low=1.2, high=1.3, flops=100),
        dict(step="1", bits=pytest.approx(1.1), low=1.1, high=1.1, flops=99),
    ]
    ends = [
        {seed: case_study.end_bits(run) for seed, run in runs.items()}
        for runs in (case_study.paths(experiment, other), ours)
    ]
    found = case_study.difference(*ends)
    assert found.mean == pytest.approx(0.105)  # over the two seeds that both have
    assert found.low < found.mean < found.high
    with pytest.raises(ValueError, match="path='sideways'"):
        case_study.paths(experiment, "sideways")
