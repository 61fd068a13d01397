"""Lighter attention: FLOPs as torch counts them, recipes that reach their share, no training."""

from dataclasses import replace

import pytest
import torch

from efflab import cost
from efflab.compression.pruning import prune_ffn
from efflab.config import PRESETS, ModelConfig
from efflab.experiments import lighten
from efflab.experiments.lighten import Damage, Recipe, by_layer, evenly, removed_share
from efflab.model import Transformer
from efflab.profile import Counter
from efflab.structure.window import with_windows

CONFIG = ModelConfig(3, 4, 32, 64, 100, 160, causal=True)
GPT = PRESETS["stdlib-gpt"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Transformer(CONFIG).eval()


@pytest.fixture(scope="module")
def batch():
    ids = torch.randint(0, 100, (2, 161), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


def costs_of(config, window=lambda i, w: 1 / w, head=lambda i, h: 1.0 + h):
    """Damage by formula instead of by trial."""
    layers = range(config.n_layer)
    windows = {(i, w): window(i, w) for i in layers for w in lighten.WIDTHS}
    return Damage(windows, {(i, h): head(i, h) for i in layers for h in range(config.n_head)})


# --- FLOPs -----------------------------------------------------------------------------------


def test_the_shares_of_stdlib_gpt():
    """Scores are 28 % of its FLOPs at 512 tokens, attention with its projections 49 %."""
    parts = cost.flops_by_part(GPT, 512)
    total = sum(parts.values())
    assert parts["scores"] / total == pytest.approx(0.279, abs=0.001)
    assert (parts["scores"] + parts["projections"]) / total == pytest.approx(0.488, abs=0.001)
    plain = lighten.identity_recipe(GPT)
    alone = replace(plain, windows=(0,) * GPT.n_layer)
    assert removed_share(GPT, plain, 512) == 0
    assert 0.24 < removed_share(GPT, alone, 512) < parts["scores"] / total < 0.3
    half = parts["scores"] * 513 / 1024  # a causal model needs no more of them
    visible = removed_share(GPT, alone, 512, "visible")
    assert visible == pytest.approx((half - half * 2 / 513) / (total - parts["scores"] + half))


RECIPES = [
    lighten.identity_recipe(CONFIG),
    Recipe((16, None, 64), ((), (0, 3), (1,))),
    Recipe((0, 256, 32), ((2,), (), (0, 1, 2))),
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("T", [160, 97])
def test_flops_are_those_that_torch_counts(recipe, T, model):
    light = prune_ffn(lighten.lighten(model, recipe), {1: range(10)})
    with torch.no_grad(), Counter() as counter:
        light(torch.zeros(1, T, dtype=torch.long))
    assert lighten.forward_flops(light, T) == sum(counter.flops.values())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("count", lighten.COUNTS)
def test_the_share_by_formula_is_that_of_the_models(recipe, count, model):
    plain, light = (
        lighten.forward_flops(m, 160, count) for m in (model, lighten.lighten(model, recipe))
    )
    assert removed_share(CONFIG, recipe, 160, count) == pytest.approx(1 - light / plain)
    assert lighten.forward_flops(model, 160) == cost.forward_flops(CONFIG, 160)


# --- Changes ---------------------------------------------------------------------------------


def test_a_recipe_changes_the_layers_it_names(model):
    light = lighten.lighten(model, Recipe((16, None, 64), ((), (0, 3), (1,))))
    found = [(a.n_head, window) for a, window in lighten.attentions(light)]
    assert found == [(4, 16), (2, None), (3, 64)]
    assert [a.n_head for a, _ in lighten.attentions(model)] == [4, 4, 4]  # a copy


def test_the_same_window_everywhere_is_the_chapters(model, batch):
    ours = lighten.lighten(model, replace(lighten.identity_recipe(CONFIG), windows=(16, 16, 16)))
    assert torch.equal(ours(batch[0]), with_windows(model, 16)(batch[0]))
    with pytest.raises(ValueError, match="already windowed"):
        lighten.lighten(ours, lighten.identity_recipe(CONFIG))


def test_damage_is_the_loss_of_each_change_alone(model, batch):
    costs = lighten.damage(model, batch)
    assert set(costs.windows) == {(i, w) for i in range(3) for w in (128, 64, 32, 16)}
    assert set(costs.heads) == {(i, h) for i in range(3) for h in range(4)}
    plain = lighten.identity_recipe(CONFIG)
    base = lighten.loss(model, batch)
    for change, found in (
        (plain.at(1, windows=32), costs.windows[1, 32]),
        (plain.at(2, removed=(3,)), costs.heads[2, 3]),
    ):
        assert found == lighten.loss(lighten.lighten(model, change), batch) - base != 0


# --- Recipes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.4])
def test_a_recipe_reaches_its_share_and_stops(share):
    costs = costs_of(GPT)
    most = lighten.attention_flops(GPT, 512, 1, None) / cost.forward_flops(GPT, 512)
    for recipe in (by_layer(GPT, costs, share, 512), evenly(GPT, costs, None, share, 512)):
        found = removed_share(GPT, recipe, 512)
        assert share <= found
        assert recipe.windows != lighten.identity_recipe(GPT).windows or found < share + most
    assert by_layer(GPT, costs, 0.0, 512) == lighten.identity_recipe(GPT)


def test_the_cheapest_change_for_its_flops_comes_first():
    """Windows cost nothing in layer 2 and heads nothing in layer 4: nothing else is touched."""
    costs = costs_of(
        GPT,
        window=lambda i, w: -0.1 if i == 2 else 5.0,
        head=lambda i, h: 0.0 if i == 4 and h < 2 else 1.0,
    )
    recipe = by_layer(GPT, costs, 0.06, 512)
    assert recipe == Recipe((None, None, 16, None, None, None), ((), (), (), (), (0, 1), ()))
    even = evenly(GPT, costs, 16, 0.25, 512)
    assert even == Recipe((16,) * 6, ((), (), (), (), (0, 1), ()))


def test_a_narrower_window_pays_what_it_adds_to_the_wider_one():
    """256 is free and 16 costs 0.2: heads at 0.05 for a seventh of a layer come between."""
    costs = costs_of(
        GPT, window=lambda i, w: 0.0 if w == 256 else 0.2, head=lambda i, h: 0.01 * (h + 1)
    )
    recipe = by_layer(GPT, costs, 0.2, 512)
    assert recipe.windows == (256,) * 6
    assert 0 < sum(map(len, recipe.removed))


def test_a_layer_keeps_a_head_and_too_much_is_refused():
    costs = costs_of(GPT, head=lambda i, h: 0.0)
    most = by_layer(GPT, costs, 0.44, 512)
    assert min(most.heads_left(GPT.n_head)) == 1
    for make in (lambda s: by_layer(GPT, costs, s, 512), lambda s: evenly(GPT, costs, 64, s, 512)):
        with pytest.raises(ValueError, match=r"share=0\.5"):
            make(0.5)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="count='full'"):
        lighten.pairs(512, None, "full")
    with pytest.raises(ValueError, match="seq_len=0"):
        lighten.pairs(0, None)
