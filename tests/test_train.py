"""The loop learns, resumes as if never killed, and refuses damaged files."""

import ast
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from efflab import train
from efflab.config import ModelConfig
from efflab.model import Transformer
from efflab.weights import save_tensors


def make(seed=0, share="none"):
    torch.manual_seed(seed)
    return Transformer(ModelConfig(2, 2, 16, 32, 20, 8, causal=True, share=share))


def counting(step):
    """Each next token is the last one plus 1, from a start that depends on the step alone."""
    starts = torch.randint(0, 20, (4, 1), generator=torch.Generator().manual_seed(step))
    ids = (starts + torch.arange(9)) % 20
    return ids[:, :-1], ids[:, 1:]


@pytest.mark.parametrize(
    "make_optimizers",
    [lambda model: train.adamw(model, 1e-2), lambda model: train.muon(model, 1e-2, adam_lr=1e-2)],
    ids=["adamw", "muon"],
)
def test_a_model_learns_to_count(make_optimizers):
    model = make()
    losses = train.fit(model, counting, 120, optimizers=make_optimizers(model))
    assert losses[0] > 2.5
    assert losses[-1] < 0.3
    assert not model.training


class Killed(Exception):
    pass


@pytest.mark.parametrize("share", ["none", "all"])
def test_a_killed_run_resumes_as_if_it_had_not_been(tmp_path, share):
    def killed_at_14(step):
        if step == 14:
            raise Killed
        return counting(step)

    straight, again = make(share=share), make(share=share)
    expected = train.fit(straight, counting, 20, optimizers=train.muon(straight))
    options = dict(checkpoint=tmp_path / "run.safetensors", checkpoint_every=5)
    with pytest.raises(Killed):
        train.fit(again, killed_at_14, 20, optimizers=train.muon(again), **options)
    seen = []

    def watched(step):
        seen.append(step)
        return counting(step)

    fresh = make(seed=9, share=share)
    losses = train.fit(fresh, watched, 20, optimizers=train.muon(fresh), **options)
    assert seen == list(range(10, 20))
    assert losses == pytest.approx(expected, abs=1e-6)
    for p, q in zip(straight.parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "run.safetensors"
    first = train.fit(make(), counting, 4, checkpoint=path)
    assert train.fit(make(), lambda step: 1 / 0, 4, checkpoint=path) == first


def wider():
    return Transformer(ModelConfig(2, 2, 32, 32, 20, 8, causal=True))


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (dict(model=wider()), r"optimizer\.0.*the model's parameter"),
        (dict(model=Transformer(ModelConfig(3, 2, 16, 32, 20, 8, causal=True))), "optimizer"),
        (dict(optimizers=train.muon(make())), "optimizers=.*Muon.*AdamW"),
        (dict(n_steps=3), "n_steps=3: expected at least the 4 steps in .*run"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, again, message):
    path = tmp_path / "run"
    train.fit(make(), counting, 4, checkpoint=path)
    options = dict(model=make(), n_steps=4) | again
    before = [p.clone() for p in options["model"].parameters()]
    with pytest.raises(ValueError, match=message):
        train.fit(batch=counting, checkpoint=path, **options)
    assert all(map(torch.equal, options["model"].parameters(), before))


def test_a_damaged_or_older_training_says_to_begin_anew(tmp_path):
    path = tmp_path / "run"
    train.fit(make(), counting, 4, checkpoint=path)
    tensors = load_file(path)
    for broken in (
        lambda: path.write_bytes(path.read_bytes()[:-1]),
        lambda: save_file(tensors, path),
    ):
        broken()
        with pytest.raises(ValueError, match=r"run .*; delete it to begin the training anew"):
            train.fit(make(), counting, 4, checkpoint=path)


def test_a_run_stops_when_its_rule_says_so(tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(until=lambda losses: len(losses) >= 3, checkpoint=path)
    first = train.fit(make(), counting, 8, **options)
    assert first == train.fit(make(), counting, 8)[:3]  # at the rates of the 8 steps planned
    assert train.fit(make(), lambda step: 1 / 0, 8, **options) == first


# --- What is not finite ----------------------------------------------------------------------


def at_step(bad, change):
    """A loss that `change` spoils at one step."""
    calls = iter(range(100))

    def loss(model, ids, targets):
        value = train.language_model_loss(model, ids, targets)
        return change(value, model) if next(calls) == bad else value

    return loss


def spoil_one(value, model):
    """One gradient is NaN; the loss and all others are finite."""
    return value + (model.layers[1].ffn.body.up.bias * 0).sum().sqrt()


SPOILT = {
    "inf": (lambda v, _: v * torch.inf, r"^loss at step 6=inf: expected a finite number"),
    "nan": (lambda v, _: v * torch.nan, r"^loss at step 6=nan"),
    "one": (spoil_one, r"^gradient of layers\.1\.ffn\.body\.up\.bias at step 6=.* 32 of 32"),
    "overflow": (lambda v, _: v * 1e37, r"^gradient norm at step 6=inf"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_not_finite_stops_before_weights_and_file(tmp_path, kind):
    change, message = SPOILT[kind]
    model, path, untouched = make(), tmp_path / "run", make()
    options = dict(checkpoint=path, checkpoint_every=5)
    with pytest.raises(ValueError, match=message):
        train.fit(model, counting, 20, loss_fn=at_step(6, change), **options)
    train.fit(untouched, counting, 20, stop=6)
    for p, q in zip(model.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(p, q)
    assert len(load_file(path)["losses"]) == 5
    assert len(train.fit(make(), counting, 20, checkpoint=path)) == 20


class Exploding(torch.optim.SGD):
    """Leaves an infinite weight behind, as too large a rate does."""

    def step(self):
        super().step()
        self.param_groups[0]["params"][0].data.view(-1)[0] = torch.inf


@pytest.mark.parametrize("checkpoint", [False, True])
def test_weights_that_are_not_finite_are_neither_saved_nor_given_back(tmp_path, checkpoint):
    model, path = make(), tmp_path / "run"
    options = dict(checkpoint=path) if checkpoint else {}
    exploding = [Exploding(model.parameters(), lr=0.1)]
    with pytest.raises(
        ValueError, match=r"embedding\.token\.weight after 1 steps=.*: expected finite"
    ):
        train.fit(model, counting, 1, optimizers=exploding, **options)
    assert not path.exists()


TIMED = {"gpu_bench.py", "case_study_latency.py"}
"""Loops that time one step over and over and keep nothing of it."""


def test_every_loop_looks_at_its_gradients_before_a_step():
    folder = Path(train.__file__).parent
    files = [folder / "train.py"]
    files += sorted(
        f for name in ("experiments", "distributed") for f in (folder / name).glob("*.py")
    )
    loops = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and "optimizer.step()" in ast.unparse(node.body):
                loops.append((file.name, ast.unparse(node.body)))
    assert len({name for name, _ in loops} - TIMED) >= 3
    for name, body in loops:
        before = body[: body.index("optimizer.step()")]
        assert name in TIMED or "gradient_norm(" in before, name


def test_the_rate_rises_and_falls():
    factors = [train.learning_rate_factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4] == 1
    assert factors[-1] == pytest.approx(1 / 95)
    assert factors[4:] == sorted(factors[4:], reverse=True)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(train.orthogonalize(g))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_orthogonalize_is_torch_s_within_bfloat16():
    g = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    coefficients = (3.4445, -4.7750, 2.0315)
    theirs = torch.optim._muon._zeropower_via_newtonschulz(g, coefficients, 5, 1e-7).float()
    assert (train.orthogonalize(g) - theirs).norm() < 0.05 * theirs.norm()


def test_muon_moves_as_torch_s(monkeypatch):
    # Torch's Newton-Schulz runs in bfloat16; with ours in its place the rest must agree exactly.
    newton_schulz = lambda g, *_: train.orthogonalize(g)  # noqa: E731
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", newton_schulz)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(24, 40, bias=False), nn.Linear(24, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    mine = train.Muon(ours.parameters(), lr=0.01)
    reference = torch.optim.Muon(
        theirs.parameters(),
        lr=0.01,
        weight_decay=0.1,
        momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
    )
    start = ours.weight.detach().clone()
    for step in range(3):
        x = torch.randn(16, 24, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    assert not torch.equal(ours.weight, start)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps=0"),
        ({"lr": 0}, "lr=0"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"clip": -1.0}, "clip=-1.0: expected a positive number"),
        ({"clip": 0}, "clip=0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train.fit(make(), counting, **({"n_steps": 1} | options))


def test_another_file_of_ours_is_no_checkpoint(tmp_path):
    save_tensors(tmp_path / "model", {"a": torch.ones(2)}, {})
    with pytest.raises(ValueError, match=r"checkpoint=.*model': expected a file that a training"):
        train.fit(make(), counting, 4, checkpoint=tmp_path / "model")


def test_nothing_is_clipped_below_an_infinite_norm():
    assert train.fit(make(), counting, 3, clip=float("inf")) == train.fit(
        make(), counting, 3, clip=1e9
    )


def head_alone(model):
    """Optimizers of the last layer: the others' gradients are nobody's to clear."""
    return train.adamw(model.layers[1], 1e-2)


@pytest.mark.parametrize("optimizers", [train.muon, head_alone])
def test_a_step_learns_from_its_own_gradients_alone(optimizers):
    fresh, used = make(), make()
    train.language_model_loss(used, *counting(7)).backward()
    expected = train.fit(fresh, counting, 4, optimizers=optimizers(fresh), clip=0.01)
    assert train.fit(used, counting, 4, optimizers=optimizers(used), clip=0.01) == expected
    by_hand = make()
    parts = optimizers(by_hand)
    peaks = [(group, group["lr"]) for o in parts for group in o.param_groups]
    for step in range(4):
        for group, peak in peaks:
            group["lr"] = peak * train.learning_rate_factor(step, 4)
        by_hand.zero_grad()
        train.language_model_loss(by_hand, *counting(step)).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.01)
        for o in parts:
            o.step()
    assert all(map(torch.equal, fresh.parameters(), by_hand.parameters()))


@pytest.mark.parametrize("batch", [counting, lambda step: 1 / 0 if step else counting(step)])
def test_the_rates_are_afterwards_what_they_were(batch):
    model = make()
    optimizers = train.muon(model)
    before = [group["lr"] for o in optimizers for group in o.param_groups]
    with suppress(ZeroDivisionError):
        train.fit(model, batch, 4, optimizers=optimizers)
    assert [group["lr"] for o in optimizers for group in o.param_groups] == before


def test_muon_leaves_out_what_has_no_gradient():
    parts = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    (parts[0] ** 2).sum().backward()
    train.Muon(parts, lr=0.1).step()
    assert not torch.equal(parts[0], parts[1])
    assert torch.equal(parts[1], torch.ones(2, 2))
