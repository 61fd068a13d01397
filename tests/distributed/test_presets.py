"""Every plain preset trains in every way, with a pooler no loss reaches or with shared layers."""

import importlib
import pkgutil
from dataclasses import replace

import pytest
import torch
from batches import SAME, held_params, random_ids

from efflab import distributed
from efflab.config import PRESETS
from efflab.distributed import buckets, data_parallel, many_machines, stages, tensor_parallel, zero
from efflab.distributed.launch import RankPool
from efflab.model import Transformer

SMALL = dict(n_layer=2, n_head=2, d_model=32, d_ff=64, vocab_size=97, max_len=16)
PLAIN = {name: config for name, config in PRESETS.items() if not config.extensions}
KINDS = {replace(c, **SMALL, d_embed=c.d_embed and 16): name for name, c in PLAIN.items()}
"""One preset of each structure that `Transformer` computes, in small."""
IDS, TARGETS = random_ids(0, 4, 8, 97), random_ids(1, 4, 8, 97)
METHODS = {
    data_parallel: [dict(method="ddp"), dict(method="by hand")],
    zero: [dict(stage=stage) for stage in zero.STAGES],
    tensor_parallel: [dict(method="ours"), dict(method="torch")],
    stages: [dict(n_microbatches=2)],
}
JOBS = [(module, options) for module, each in METHODS.items() for options in each]


@pytest.fixture(scope="module")
def ranks():
    with RankPool(2) as pool:
        yield pool


@pytest.fixture(params=KINDS, ids=KINDS.get)
def config(request):
    return request.param


def test_every_job_is_tried():
    files = pkgutil.iter_modules(distributed.__path__, f"{distributed.__name__}.")
    modules = {importlib.import_module(info.name) for info in files}
    assert {m for m in modules if vars(m).get("Job") and m.Job.__module__ == m.__name__} == set(
        METHODS
    )


@pytest.mark.parametrize(("module", "options"), JOBS, ids=str)
def test_a_preset_trains_as_in_one_process(ranks, config, module, options):
    if module is stages and config.share != "none":
        with pytest.raises(ValueError, match=r"config\.share="):
            module.Job(config, IDS, TARGETS, **options)
        return
    results = ranks.run(module.on_rank, module.Job(config, IDS, TARGETS, **options), timeout=60)
    one = data_parallel.Job(config, IDS, TARGETS).alone()
    if module is tensor_parallel:
        assert {r.params for r in results} == {held_params(config, 2)}
        assert max(r.gradients_error for r in results) < SAME
    elif module is stages:
        assert results[-1].loss == pytest.approx(one.losses[0], abs=1e-5)
        assert set().union(*(r.gradients for r in results)) == set(one.gradients)
    else:
        assert sum(r.losses[0] for r in results) / 2 == pytest.approx(one.losses[0], abs=1e-5)


def test_buckets_carry_every_parameter(ranks, config):
    wire = buckets.Wire()
    trace, _ = ranks.run(buckets.trace_on_rank, config, IDS, TARGETS, 0.01, wire, timeout=60)
    n = sum(p.numel() for p in data_parallel.new_model(config).parameters())
    assert sum(t.n_bytes for t in trace.transfers) == 4 * n


def test_what_torchrun_offers_are_the_presets():
    action = next(a for a in many_machines._parser()._actions if a.dest == "model")
    assert set(action.choices) == set(PRESETS)


def test_a_model_of_ones_own_may_have_parameters_that_the_loss_does_not_reach():
    config = next(c for c in KINDS if c.pooler)
    run = data_parallel.train(Transformer(config), IDS, TARGETS, 2)
    assert not run.gradients["pooler.weight"].any()
    assert run.gradients["embedding.token.weight"].any()
    assert torch.isfinite(torch.tensor(run.losses)).all()
