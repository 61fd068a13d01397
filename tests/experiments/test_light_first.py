"""The experiment of `light-first`: what is trained and timed, and its costs at equal quality."""

import json
from math import log

import pytest
import torch
from designs import registered_call

from efflab.compression.language import torch_language
from efflab.experiments import light_first as experiment
from efflab.experiments import light_first_times as timed
from efflab.experiments.registration import rule_hash, rules_for
from efflab.lab.judge import evidence_ids, read_rules
from efflab.model import n_parameters
from efflab.structure.window import SlidingAttention

RULES = [part.get("next", part) for part in read_rules()["light-first"].values()]
MARGIN = RULES[0]["controls"][0]["margin"]
NAMES = (*experiment.VARIANTS, *experiment.OTHERS, experiment.NAIVE)


def points(**bits):
    """Points of a seed: bytes double with each 0.1 bits fewer, as the family's times do."""
    levels = dict(zip(experiment.FAMILY, (2.5, 2.4, 2.3, 2.2, 2.1, 2.0), strict=True))
    named = {name.replace("_", "-"): value for name, value in bits.items()}
    levels = dict.fromkeys(NAMES, 2.0) | levels | named
    return {name: dict(bits=b, nbytes=1000 * 2 ** (10 * (2.5 - b))) for name, b in levels.items()}


def texts_of(points, more):
    """The same on texts that are harder by so many bits."""
    return {name: row | dict(bits=row["bits"] + more) for name, row in points.items()}


def times(seed=270, again=1.0, **latency):
    """Times of a seed that double likewise."""
    plain = {member: 2.0**-i for i, member in enumerate(reversed(experiment.FAMILY))}
    rest = dict.fromkeys(name for name in NAMES if name not in plain) | plain
    both = {name: 1.0 if value is None else value for name, value in rest.items()}
    named = {name.replace("_", "-"): value for name, value in latency.items()}
    noise = dict.fromkeys(("latency", "training"), again)
    return dict(seed=seed, latency=both | named, training=both, again=noise)


# --- What is trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_the_runs_are_those_that_the_rule_registers(rule, monkeypatch):
    options = registered_call(experiment, rule, monkeypatch)
    assert rule_hash(rule) in options["rules"]


def test_the_times_are_made_for_the_same_rules(monkeypatch):
    calls = []
    monkeypatch.setattr(timed, "run_cases", lambda *a, **options: calls.append((a, options)))
    timed.run()
    ((name, cases, run_one), options) = calls[0]
    assert name == timed.NAME
    assert run_one is timed.run_one
    assert options["rules"] == rules_for(experiment.NAME) == sorted(map(rule_hash, RULES))
    assert [case["seed"] for case in cases] == RULES[0]["source"]["seeds"]


def test_the_light_models_are_light_in_what_they_claim():
    models = {variant: experiment.make(variant) for variant in experiment.VARIANTS}
    sizes = {name: n_parameters(model) for name, model in models.items()}
    albert = models["albert-192"]
    assert sizes["albert-192"] < 1.1 * sizes["plain-64"] * 2
    assert set(albert.layers[0].parameters()) == set(albert.layers.parameters())
    assert albert.config.d_embed == experiment.TABLE_WIDTH
    assert sizes["windows-128"] == sizes["plain-128"]
    windows = [m for m in models["windows-128"].modules() if isinstance(m, SlidingAttention)]
    assert [m.window_size for m in windows] == [experiment.WINDOW] * 6
    n_heads = [models[member].config.n_head for member in experiment.FAMILY]
    assert n_heads == [1, 1, 2, 2, 3, 4]
    assert sizes["pruned"] == sizes[experiment.LARGEST]
    with pytest.raises(ValueError, match="variant='plain-81'"):
        experiment.make("plain-81")


def test_the_pruned_model_trains_as_many_steps_as_all_others(monkeypatch):
    fits = []

    def fit(model, batch, n_steps, stop=None, optimizers=None):
        rates = [group["lr"] for o in optimizers for group in o.param_groups]
        fits.append((batch(0), n_steps, stop, rates, n_parameters(model)))

    monkeypatch.setattr(experiment.train, "fit", fit)
    monkeypatch.setattr(experiment, "N_STEPS", 10)
    monkeypatch.setattr(experiment, "training_windows", lambda b, t, first: lambda s: first + s)
    for variant in ("plain-64", experiment.PRUNED):
        experiment.train_variant(variant, 3)
    plain, dense, sparse = fits
    assert plain[:4] == (3_000_000, 10, 10, [0.012, 0.006])
    assert dense[:4] == (3_000_000, 10, 6, [0.012, 0.006])
    assert sparse[:3] == (3_000_006, 4, None)
    assert sparse[3] == pytest.approx([0.012 * 4 / 9, 0.006 * 4 / 9])  # as the whole run has it
    neurons = 6 * 512 * experiment.RATIO
    assert dense[4] - sparse[4] == neurons * (2 * 128 + 1)


def test_a_run_has_a_point_of_all_that_is_made_of_its_model(monkeypatch):
    monkeypatch.setattr(experiment, "N_STEPS", 1)
    monkeypatch.setattr(experiment, "N_WINDOWS", 2)
    monkeypatch.setattr(experiment, "LARGEST", "plain-64")
    exact = lambda model, folder: torch_language("exact", model)  # noqa: E731
    for name in ("make_int8", "make_compiled"):
        monkeypatch.setattr(experiment, name, exact)
    run = experiment.run_one("plain-64", 3)
    found = run["points"]
    assert list(found) == ["plain-64", "int8", "gptq", "compiled", "naive"]
    assert found["int8"]["bits"] == found["compiled"]["bits"] == found["plain-64"]["bits"]
    n_bytes = {
        name: values["nbytes"] / found["plain-64"]["nbytes"] for name, values in found.items()
    }
    assert n_bytes["gptq"] < n_bytes["int8"] < 0.3 < n_bytes["naive"] < 0.9
    assert found["gptq"]["bits"] == pytest.approx(found["plain-64"]["bits"], abs=0.1)
    assert list(experiment.run_one("plain-96", 3)["points"]) == ["plain-96"]
    assert json.loads(json.dumps(run)) == run


# --- What is timed -------------------------------------------------------------------------------


def test_a_row_has_every_time_over_the_largest_plain_models(monkeypatch):
    few = ("plain-64", "plain-128", "pruned")
    monkeypatch.setattr(timed, "VARIANTS", few)
    monkeypatch.setattr(timed, "SEQ_LEN", 128)
    exact = lambda model, *_: torch_language("exact", model)  # noqa: E731
    for name in ("make_int8", "make_compiled"):
        monkeypatch.setattr(experiment, name, exact)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    row = timed.measure(3, dict(latency=3, training=2), 0)
    assert list(row["latency"]) == [*few, "compiled", "int8"]
    assert list(row["training"]) == [*few, "compiled"]
    assert row["training"]["plain-64"] < 1 < 3 * row["training"]["pruned"]
    assert row["busy_cores"] is None or row["busy_cores"] >= 0
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("busy", [0.1, 0.9])
def test_a_machine_that_was_busy_meanwhile_is_refused(monkeypatch, busy):
    monkeypatch.setattr(timed, "busy_cores", lambda: 0.0)
    monkeypatch.setattr(timed, "alone", lambda *task: dict(busy_cores=busy, task=task))
    if busy < 0.5:
        name, task = timed.run_one(270)["task"]
        assert (name, task) == ("efflab.experiments.light_first_times:measure", dict(seed=270))
    else:
        with pytest.raises(ValueError, match=r"busy cores=0\.9"):
            timed.run_one(270)


# --- What it comes to ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_plain_model_costs_what_a_plain_model_costs(n_seeds):
    seeds = [texts_of(points(), 0.3 * i) for i in range(n_seeds)]
    found = experiment.equal_costs(seeds, [times()] * n_seeds)
    for logs in found.values():
        for name in (*experiment.WITHHELD, "compiled"):
            assert logs[name] == pytest.approx([0.0] * n_seeds, abs=1e-9)


@pytest.mark.parametrize(("bits", "doublings"), [(2.15, 3.5), (2.0, 5), (1.9, 6), (2.6, -1)])
def test_a_techniques_cost_is_set_against_equal_quality(bits, doublings):
    """Between two models of the family, and beyond its ends."""
    found = experiment.equal_costs([points(albert_192=bits)], [times(albert_192=0.5)])
    expected = log(0.5) - log(2**-5 * 2**doublings)
    assert found["latency"]["albert-192"] == pytest.approx([expected])
    assert found["checkpoint"]["albert-192"] == pytest.approx([0.0], abs=1e-9)


def convex(budget):
    """A family whose costs rise ever more steeply, as of a pilot and by a smooth law."""
    n_params = (158_208, 298_752, 463_872, 677_120, 916_992, 1_517_568)
    latency = (0.15, 0.28, 0.43, 0.54, 0.66, 1.0)
    costs = n_params if budget == "checkpoint" else latency
    rows = zip(experiment.FAMILY, costs, n_params, strict=True)
    return {m: (cost, 1.38 + 0.57 * (n / n_params[0]) ** -0.65) for m, cost, n in rows}


@pytest.mark.parametrize("budget", experiment.BUDGETS[:2])
@pytest.mark.parametrize("member", experiment.WITHHELD)
def test_a_plain_model_that_its_family_lacks_comes_to_nearly_one(budget, member):
    family = convex(budget)
    row = {name: dict(bits=bits) for name, (_, bits) in family.items()}
    cost = {name: value for name, (value, _) in family.items()}
    plain = experiment.plain_cost(row, cost, without=member)
    assert log(cost[member]) - plain(row[member]["bits"]) == pytest.approx(0, abs=MARGIN)
    assert experiment.plain_cost(row, cost)(row[member]["bits"]) == pytest.approx(log(cost[member]))


def test_beyond_the_family_a_plain_model_never_costs_more_for_less():
    family = convex("checkpoint")
    row = {name: dict(bits=bits) for name, (_, bits) in family.items()}
    plain = experiment.plain_cost(row, {name: cost for name, (cost, _) in family.items()})
    log_costs = [plain(bits) for bits in (1.3, 1.5, 1.9, 1.95, 2.3, 3.0, 9.0)]
    assert log_costs == sorted(log_costs, reverse=True)


def test_what_a_pruned_model_costs_to_train_is_both_parts():
    row = times()
    row["training"] = row["training"] | dict(pruned=0.5)
    before = json.dumps(row)
    cost = experiment.costs(points(), row)
    share = experiment.DENSE_SHARE
    assert cost["training"]["pruned"] == pytest.approx(share + (1 - share) * 0.5)
    assert cost["training"]["int8"] == cost["latency"]["gptq"] == 1
    assert json.dumps(row) == before


def test_a_lead_is_over_the_best_of_all_else_and_over_no_change():
    logs = {"albert-192": [-0.1, -0.3], "windows-128": [-0.4, 0.1]}
    rest = {name: [0.2, 0.3] for name in experiment.OTHERS}
    assert experiment.leads(logs | rest) == [-0.1, -0.3]
    assert experiment.leads(logs | rest | dict(int8=[-0.5, -0.4])) == pytest.approx([0.4, 0.1])


def test_cases_are_those_that_the_rules_ask_for_and_of_whole_seeds():
    seeds = (270, 271, 272)
    runs = [
        dict(variant=name, seed=seed, points={name: values})
        for seed in seeds
        for name, values in points(windows_128=2.1).items()
    ]
    rows = [times(seed, 1 + i / 100, windows_128=0.5) for i, seed in enumerate(seeds)]
    found = experiment.cases(runs, rows)
    assert {key for rule in RULES for key in evidence_ids(rule)} <= set(found)
    assert found["windows-128-latency"].mean == pytest.approx(1)
    assert found["windows-128-latency"].high > 1.01  # the noise
    assert found["windows-128-checkpoint"].high == pytest.approx(1)
    fewer = [run for run in runs if run["variant"] != "gptq" or run["seed"] < 272]
    part = experiment.cases(fewer, rows)["equal-checkpoint"]
    assert part.mean == pytest.approx(found["equal-checkpoint"].mean)
