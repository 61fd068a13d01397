"""The experiment of `profile-first`: four changes that cost nothing, and two ways to choose."""

import json
from math import prod

import pytest
import torch

from efflab import cost
from efflab.config import PRESETS
from efflab.estimate import of_mean
from efflab.experiments import profile_first as experiment
from efflab.experiments.registration import rule_hash
from efflab.lab.judge import evidence_ids, read_rules
from efflab.model import Transformer

RULE = read_rules()["profile-first"]["choice"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return Transformer(experiment.config(128, 48)).eval()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(experiment.VOCAB, (2, 48), generator=torch.Generator().manual_seed(2))


def row(width=192, n_tokens=128, seed=260, count="products", **other):
    """A run in which the profile chooses the head."""
    known = dict(width=width, n_tokens=n_tokens, seed=seed, again=1.01, rival=0.8, rival_twice=0.7)
    known |= dict(first=dict(profile="head", count=count))
    known |= dict(time=dict(attention=0.9, products=0.75, elementwise=1.0, head=0.6))
    return known | dict(lost=dict.fromkeys(experiment.PARTS, 0.0)) | other


# --- The model and its changes -----------------------------------------------------------------


@pytest.mark.parametrize("changes", [(), ("attention",), ("elementwise",), ("head",)])
@torch.no_grad()
def test_exact_changes_answer_as_the_model_does(model, ids, changes):
    expected = model(ids)[:, -1:]
    torch.testing.assert_close(experiment.make(model, changes)(ids), expected)
    assert isinstance(model.final_norm, torch.nn.LayerNorm)  # the model itself is left alone


@torch.no_grad()
def test_int8_products_answer_nearly_as_the_model_does(model, ids):
    small, exact = experiment.make(model, ["products"])(ids), model(ids)[:, -1:]
    assert 1e-4 < (small - exact).norm() / exact.norm() < 0.1
    kinds = {type(module).__module__ for module in experiment.make(model, ["products"]).modules()}
    assert "torch.ao.nn.quantized.dynamic.modules.linear" in kinds


@torch.no_grad()
def test_all_changes_go_together(model, ids):
    every = experiment.make(model, experiment.PARTS)
    assert every.only_last
    assert (every(ids) - model(ids)[:, -1:]).norm() / model(ids)[:, -1:].norm() < 0.1


def test_a_change_that_is_none_is_refused(model):
    with pytest.raises(ValueError, match=r"changes='ffn': expected one of 'attention'"):
        experiment.make(model, ["ffn"])


def test_the_formulas_gradients_are_the_kernels(model, ids):
    gradients = []
    for changes in ((), ("attention", "elementwise")):
        net = experiment.make(model, changes)
        net(ids).square().sum().backward()
        gradients.append(net.model.embedding.token.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


# --- Two ways to choose --------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "n_tokens"), [(128, 128), (768, 1024)])
def test_the_count_is_the_formulas(width, n_tokens):
    shape = experiment.config(width, n_tokens)
    shares, flops = experiment.flop_shares(shape, n_tokens), cost.flops_by_part(shape, n_tokens)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["attention"] / shares["head"] == pytest.approx(flops["scores"] / flops["logits"])
    assert shares["elementwise"] == 0
    assert (experiment.largest(shares) == "products") == (width == 768)


def test_the_head_is_as_large_as_gpt_2s():
    ours = experiment.flop_shares(experiment.config(768, 1024), 1024)["head"]
    flops = cost.flops_by_part(PRESETS["gpt2"], 1024)
    assert ours == pytest.approx(flops["logits"] / sum(flops.values()), rel=0.05)


@pytest.mark.parametrize("changes", [(), experiment.PARTS])
def test_the_profile_tells_the_parts_apart(model, ids, changes, monkeypatch):
    monkeypatch.setattr(experiment, "N_PROFILES", 1)  # medians need not sum to 1
    shares = experiment.time_shares(experiment.make(model, changes), ids)
    assert list(shares) == list(experiment.PARTS)
    assert all(share > 0.01 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)


def test_a_part_that_grows_takes_a_larger_share():
    model = Transformer(experiment.config(128, 192)).eval()
    # with 48 tokens the head mostly reads its weights, as it does for the last token alone
    ids = torch.randint(experiment.VOCAB, (2, 192), generator=torch.Generator().manual_seed(2))
    whole = experiment.time_shares(experiment.make(model), ids)
    less = experiment.time_shares(experiment.make(model, ["head"]), ids)
    assert less["head"] < 0.5 * whole["head"]


def test_the_second_choice_is_another_part():
    shares = dict(attention=0.3, products=0.2, elementwise=0.1, head=0.4)
    assert experiment.largest(shares) == "head"
    assert experiment.largest(shares, ["head"]) == "attention"


# --- Runs ----------------------------------------------------------------------------------------


def test_the_runs_are_those_that_the_rule_registers(monkeypatch):
    calls = []
    monkeypatch.setattr(experiment, "run_cases", lambda *a, **options: calls.append((a, options)))
    experiment.run()
    ((name, cases, run_one), options) = calls[0]
    assert name == RULE["source"]["record"]
    assert run_one is experiment.run_one
    assert options["rules"] == [rule_hash(RULE)]
    assert RULE["source"]["settings"].items() <= options["settings"].items()
    assert sorted({case["seed"] for case in cases}) == RULE["source"]["seeds"]
    assert {f"rival-{experiment.shape_name(case)}" for case in cases} == set(RULE["cases"])
    assert len(cases) == 50


def test_a_run_says_what_was_chosen_and_what_it_came_to(monkeypatch):
    monkeypatch.setattr(experiment, "VOCAB", 500)
    monkeypatch.setattr(experiment, "N_WINDOWS", 2)
    run = experiment.measure(128, 64, 3, repeats=2)
    assert run["first"]["count"] == experiment.largest(run["flops"])
    assert run["first"]["profile"] == experiment.largest(run["shares"])
    for who, first in run["first"].items():
        pair = run["both"][who].split("+")
        assert first in pair
        assert len(set(pair)) == 2
    assert set(run["time"]) == set(run["lost"]) == set(experiment.PARTS)
    assert run["lost"]["head"] == 0
    assert abs(run["lost"]["attention"]) < 1e-3
    assert 0 < abs(run["lost"]["products"]) < 0.2
    alike = run["first"]["profile"] == run["first"]["count"]
    assert (run["rival"] == 1) == alike
    assert json.loads(json.dumps(run)) == run


@pytest.mark.parametrize("busy", [0.1, 0.9])
def test_a_machine_that_was_busy_meanwhile_is_refused(monkeypatch, busy):
    monkeypatch.setattr(experiment, "alone", lambda *task: dict(busy_cores=busy, task=task))
    if busy < 0.5:
        name, task = experiment.run_one(128, 128, 260)["task"]
        assert name == "efflab.experiments.profile_first:measure"
        assert task == dict(width=128, n_tokens=128, seed=260)
    else:
        with pytest.raises(ValueError, match=r"busy cores=0\.9"):
            experiment.run_one(128, 128, 260)


# --- What it comes to ----------------------------------------------------------------------------


def test_cases_are_those_that_the_rule_asks_for():
    shapes = [(w, n) for w in experiment.WIDTHS for n in experiment.LENGTHS]
    runs = [row(w, n, seed) for w, n in shapes for seed in experiment.SEEDS]
    assert set(evidence_ids(RULE)) <= set(experiment.cases(runs))


def test_a_shapes_time_carries_its_noise():
    runs = [row(seed=260 + i, rival=0.8 + 0.01 * i, again=1 + 0.02 * i) for i in range(3)]
    estimates = experiment.cases(runs)
    alone = of_mean([0.8, 0.81, 0.82])
    rival = estimates["rival-192-128"]
    assert rival.mean == pytest.approx(0.81)
    assert rival.low < alone.low
    assert rival.high > alone.high
    assert estimates["twice-192-128"].mean == pytest.approx(0.7)


def test_all_shapes_of_a_seed_are_taken_together():
    runs = [row(w, 128, s, count=c) for s in (260, 261) for w, c in ((128, "head"), (192, "head"))]
    runs += [row(384, 128, s, rival_twice=0.4) for s in (260, 261)]
    estimates = experiment.cases(runs)
    assert estimates["differ"].mean == 1
    assert estimates["spread"].mean == pytest.approx(0.6)
    assert estimates["best-profile"].mean == pytest.approx(1)
    assert estimates["best-count"].mean == pytest.approx((0.75 / 0.6) ** (1 / 3))
    assert estimates["twice"].mean == pytest.approx(prod((0.7, 0.7, 0.4)) ** (1 / 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_change_that_costs_most_speaks_for_all(sign):
    lost = dict(attention=0.001, products=0.02 * sign, elementwise=0.0, head=0.0)
    runs = [row(seed=seed, lost=lost) for seed in (260, 261)]
    assert experiment.cases(runs)["quality-difference"].mean == pytest.approx(0.02 * sign)
