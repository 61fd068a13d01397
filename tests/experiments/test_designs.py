"""The registered experiments of notebook 01: what they train and count, beside their rules."""

import numpy as np
import pytest
import torch

from efflab.experiments import (
    encoder_reuse_3,
    encoder_tasks,
    qkv_sharing,
    qkv_sharing_2,
    variants,
)
from efflab.experiments.registration import rule_hash, rules_for
from efflab.lab.judge import evidence_ids, read_rules
from efflab.model import n_parameters
from efflab.structure.sharing import share_qkv

QKV = list(read_rules()["qkv-share-half"].values())
REUSE = read_rules()["encoder-reuse"]["quality"]
DESIGNS = [(qkv_sharing_2, QKV), (encoder_reuse_3, [REUSE])]


def test_the_runs_are_those_that_the_rules_register(monkeypatch):
    calls = []
    for place in (variants, encoder_reuse_3):
        monkeypatch.setattr(place, "run_cases", lambda *args, **options: calls.append(options))
    for module in (qkv_sharing_2, encoder_reuse_3):
        module.run()
    for options, rules in zip(calls, (QKV, [REUSE]), strict=True):
        assert options["rules"] == sorted(map(rule_hash, rules))
        for rule in rules:
            assert rule["source"]["settings"].items() <= options["settings"].items()
    assert rules_for("no-such-record") == []


@pytest.mark.parametrize(("module", "rules"), DESIGNS)
def test_seeds_and_cases_are_the_registered_ones(module, rules):
    for rule in rules:
        assert list(module.SEEDS) == rule["source"]["seeds"]
    assert {key for rule in rules for key in evidence_ids(rule)} == set(module.CASES)


def test_variants_differ_in_what_is_shared_alone():
    models = {v: qkv_sharing_2.make(v, 3) for v in qkv_sharing_2.VARIANTS}
    sizes = {v: n_parameters(model) for v, model in models.items()}
    assert sizes["layers"] < sizes["all"] < sizes["half"] < sizes["none"]
    one_qkv = 3 * 64 * 65
    assert [sizes["none"] - sizes[v] for v in ("half", "all")] == [2 * one_qkv, 5 * one_qkv]
    ids = torch.arange(12)[None]
    for model in models.values():
        assert torch.equal(model.embedding.token.weight, models["none"].embedding.token.weight)
        changed = model(torch.cat([ids[:, :-1], ids[:, :1]], 1))
        torch.testing.assert_close(changed[:, :-1], model(ids)[:, :-1])  # causal
    with pytest.raises(ValueError, match="variant='most'"):
        qkv_sharing_2.make("most", 0)


def test_a_variant_trains_as_the_earlier_experiment_does():
    earlier = qkv_sharing.validation_loss(3, seed=1, stop=2)
    torch.manual_seed(1)
    model = share_qkv(qkv_sharing.Transformer(qkv_sharing.CONFIG), 3)
    assert qkv_sharing.trained_loss(model, 1, qkv_sharing.N_STEPS, 2) == earlier


def test_losses_are_paired_by_seed():
    losses = dict(none=3.9, half=3.92, all=4.0, convolution=3.95, layers=4.2)
    runs = [
        dict(variant=v, seed=seed, loss=loss + level)
        for v, loss in losses.items()
        for seed, level in ((101, 0.5), (100, 0.0), (102, 1.0))
    ]
    found = qkv_sharing_2.cases(runs)
    values = {key: estimate.mean for key, estimate in found.items()}
    assert values == pytest.approx(
        {
            "knee-half": 0.02,
            "knee-past-half": 0.08,
            "knee-all": 0.1,
            "knee-convolution": -0.05,
            "knee-layers": 0.3,
        }
    )
    assert found["knee-half"].high - found["knee-half"].low < 1e-9


def test_every_text_is_a_test_text_once_and_trains_otherwise():
    tested = []
    hits = encoder_reuse_3.fold_hits(10, 100, lambda test: tested.append(test) or test[test])
    assert hits == "1" * 10
    assert (np.sum(tested, axis=0) == 1).all()
    assert len(tested) == encoder_reuse_3.N_FOLDS
    others = []
    encoder_reuse_3.fold_hits(10, 101, lambda test: others.append(test) or test[test])
    assert not np.array_equal(tested, others)


def test_hits_stand_at_their_texts():
    def right_on_even(test):
        return np.flatnonzero(test) % 2 == 0

    assert encoder_reuse_3.fold_hits(6, 100, right_on_even) == "101010"


def test_points_are_of_texts_and_seeds_of_one_text_stay_together():
    runs = [
        dict(task=task, kind=kind, seed=seed, hits=hits)
        for task in encoder_tasks.TASKS
        for kind, hits in (("tuned", "1111"), ("head", "1110"), ("untrained", "1000"))
        for seed in (240, 241)
    ]
    found = encoder_reuse_3.cases(runs)
    assert found["folds-takes"].mean == pytest.approx(25)
    assert found["untrained-package"].mean == pytest.approx(75)
    assert encoder_reuse_3.cases(runs[::2] + runs[1::2]) == found
    # a second seed with the same hits tells nothing new
    assert encoder_reuse_3.cases([run for run in runs if run["seed"] == 240]) == found


def test_the_texts_are_none_that_the_pilot_saw():
    docs = encoder_tasks.docstrings()
    earlier = encoder_tasks._earlier_texts()
    assert len(earlier) == 8 * encoder_tasks.PER_PACKAGE
    assert not earlier & {*docs.texts}
    assert len({*docs.texts}) == len(docs.texts) > 2 * len(earlier)
    n_texts = np.bincount(docs.labels["package"])
    assert len(n_texts) == encoder_tasks.N_MODULES
    assert (np.diff(n_texts) <= 0).all()
    for task in ("returns", "takes"):
        assert {*docs.labels[task].tolist()} == {0, 1}


def test_an_untrained_encoders_head_is_judged_beside_the_pretrained_ones(monkeypatch):
    docs = encoder_tasks.docstrings()
    few = slice(0, None, 24)
    labels = {"returns": docs.labels["returns"][few]}
    small = encoder_tasks.Docstrings(docs.texts[few], labels)
    monkeypatch.setattr(encoder_tasks, "docstrings", lambda: small)
    monkeypatch.setattr(encoder_reuse_3, "N_STEPS", 1)
    hits = {k: encoder_reuse_3.run_one("returns", k, 3)["hits"] for k in encoder_reuse_3.KINDS}
    assert {len(own) for own in hits.values()} == {len(small.texts)}
    assert hits["untrained"] != hits["head"]
    assert hits["untrained"] == encoder_reuse_3.run_one("returns", "untrained", 3)["hits"]
    assert hits["untrained"] != encoder_reuse_3.run_one("returns", "untrained", 4)["hits"]
    with pytest.raises(ValueError, match="kind='shuffled'"):
        encoder_reuse_3.run_one("returns", "shuffled", 3)
