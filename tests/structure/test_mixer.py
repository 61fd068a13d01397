"""MLP-Mixer and the small ViT beside it: published counts, a naive reference, refusals."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from efflab.data import read_published
from efflab.model import n_parameters
from efflab.structure.mixer import MixerConfig, MLPMixer, enlarge, mixer_flops, mixer_params
from efflab.structure.vit import ViT, ViTConfig, vit_flops, vit_params

TIMM = {  # released weights without their classifier, as timm counts them
    "S/32": 18_591_624,
    "S/16": 18_015_264,
    "B/32": 59_524_428,
    "B/16": 59_111_472,
    "L/32": 205_914_264,
    "L/16": 207_171_168,
    "H/14": 431_069_952,
}
MIXER_B16 = MixerConfig(224, 16, 12, 768, 384, 3072)
VIT_B16 = ViTConfig(224, 16, 12, 12, 768, 3072)
SMALL = dict(n_layer=2, d_model=12, d_token=5, d_channel=20, n_classes=4, channels=1)


@pytest.mark.parametrize("row", read_published("mixer"), ids=lambda row: row["model"])
def test_counts_are_the_papers(row):
    patch_size = int(row["model"].split("/")[1])
    names = ("layers", "channels", "d_token", "d_channel")
    sizes = (224, patch_size, *(row[name] for name in names))
    exact = mixer_params(MixerConfig(*sizes))
    assert exact == TIMM[row["model"]]
    assert round(exact / 1e6) == row["params_millions"]
    with torch.device("meta"):
        model = MLPMixer(*sizes, n_classes=0)
        with_head = MLPMixer(*sizes, n_classes=1000)
    assert n_parameters(model) == exact
    assert model.layers[0].token.up.in_features == row["patches"]
    assert n_parameters(with_head) - n_parameters(model) == (row["channels"] + 1) * 1000


def test_mixer_b16_has_the_macs_of_its_released_card():
    flops = mixer_flops(replace(MIXER_B16, n_classes=1000))
    assert round(flops / 2e9, 1) == 12.6  # timm's card of mixer_b16_224, multiply-accumulates


def test_vit_b16_has_its_released_size():
    # 86,567,656 with the class token and its position, which averaging the patches does without
    assert vit_params(replace(VIT_B16, n_classes=1000)) == 86_567_656 - 2 * 768


@pytest.mark.parametrize(("image_size", "patch_size"), [(8, 2), (12, 3), (10, 5)])
@pytest.mark.parametrize("n_classes", [0, 7])
def test_formulas_are_the_models_own(image_size, patch_size, n_classes):
    mixer = MLPMixer(image_size, patch_size, 2, 12, 5, 20, n_classes, channels=2)
    vit = ViT(image_size, patch_size, 2, 3, 12, 20, n_classes, channels=2)
    assert n_parameters(mixer) == mixer_params(mixer.config)
    assert n_parameters(vit) == vit_params(vit.config)
    images = torch.randn(3, 2, image_size, image_size)
    for model, flops in (
        (mixer, mixer_flops(mixer.config)),
        (vit, vit_flops(vit.config)),
    ):
        # the counter does not know the CPU's fused kernel
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(images)
        assert counter.get_total_flops() == 3 * flops


def naive_mixer(weights, images, patch_size, n_layer):
    """Equation 1 of the paper, patch by patch, from a state dict alone."""
    B, _, size, _ = images.shape
    kernel = weights["patches.conv.weight"].flatten(1)
    rows = []
    for y in range(0, size, patch_size):
        for x in range(0, size, patch_size):
            patch = images[:, :, y : y + patch_size, x : x + patch_size].reshape(B, -1)
            rows.append(patch @ kernel.T + weights["patches.conv.bias"])
    x = torch.stack(rows, 1)

    def norm(x, name):
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt() * scale + shift

    for i in range(n_layer):
        w = {k.removeprefix(f"layers.{i}."): v for k, v in weights.items()}
        u = torch.einsum("hs,bsc->bhc", w["token.up.weight"], norm(x, f"layers.{i}.token_norm"))
        u = F.gelu(u + w["token.up.bias"][:, None])
        u = torch.einsum("sh,bhc->bsc", w["token.down.weight"], u)
        x = x + u + w["token.down.bias"][:, None]
        u = torch.einsum("hc,bsc->bsh", w["channel.up.weight"], norm(x, f"layers.{i}.channel_norm"))
        u = F.gelu(u + w["channel.up.bias"])
        x = x + torch.einsum("ch,bsh->bsc", w["channel.down.weight"], u) + w["channel.down.bias"]
    pooled = norm(x, "norm").sum(1) / x.shape[1]
    return pooled @ weights["head.weight"].T + weights["head.bias"]


def test_values_and_gradients_equal_the_naive_reference():
    torch.manual_seed(0)
    model = MLPMixer(8, 2, **SMALL).double()
    for p in model.parameters():  # biases and norms away from 0 and 1, so that each one counts
        torch.nn.init.normal_(p, std=0.5)
    images = torch.randn(3, 1, 8, 8, dtype=torch.double, requires_grad=True)
    weights = dict(model.named_parameters())
    ours, theirs = model(images), naive_mixer(weights, images, 2, 2)
    torch.testing.assert_close(ours, theirs)
    targets = [images, *weights.values()]
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), targets),
        torch.autograd.grad(theirs.square().sum(), targets),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_a_vits_layers_are_torchs_that_normalize_first():
    torch.manual_seed(0)
    vit = ViT(8, 2, 2, 3, 12, 20, 4, channels=1)
    options = dict(dropout=0, activation="gelu", norm_first=True, batch_first=True)
    x = expected = torch.randn(2, 16, 12)
    for layer in vit.layers:
        theirs = torch.nn.TransformerEncoderLayer(12, 3, 20, layer_norm_eps=1e-6, **options)
        attention, ffn = layer.attention, layer.ffn
        pairs = {
            "self_attn.in_proj_": attention.body.qkv,
            "self_attn.out_proj.": attention.body.out,
            "linear1.": ffn.body.up,
            "linear2.": ffn.body.down,
            "norm1.": attention.norm,
            "norm2.": ffn.norm,
        }
        for norm in (attention.norm, ffn.norm):
            torch.nn.init.normal_(norm.weight)
        named = {f"{k}{n}": p for k, m in pairs.items() for n, p in m.named_parameters()}
        theirs.load_state_dict(named)
        expected = theirs(expected)
    torch.testing.assert_close(vit.layers(x), expected)
    images = torch.randn(2, 1, 8, 8)
    tokens = vit.layers(vit.patches(images) + vit.position)
    torch.testing.assert_close(vit(images), vit.head(vit.norm(tokens).mean(1)))
    assert {m.eps for m in vit.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize(
    ("config", "sizes"),
    [(MixerConfig, (8, 2, 2, 12, 5, 20, 4)), (ViTConfig, (8, 2, 2, 3, 12, 20, 4))],
)
def test_colours_are_three_unless_named_otherwise(config, sizes):
    assert config(*sizes).channels == 3
    assert config(*sizes[:-1]).n_classes == 0
    with pytest.raises(TypeError, match="positional"):
        config(*sizes, 1)
    with pytest.raises(FrozenInstanceError):
        config(*sizes).channels = 1


def test_mixer_sees_the_order_of_patches_and_a_vit_without_positions_does_not():
    torch.manual_seed(0)
    images = torch.randn(2, 1, 8, 8)
    shuffled = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[:, :, [3, 1, 0, 2]]
    shuffled = shuffled.view(2, 1, 2, 2, 4, 4).permute(0, 1, 2, 4, 3, 5).reshape(2, 1, 8, 8)
    mixer = MLPMixer(8, 4, **SMALL)
    vit = ViT(8, 4, 2, 3, 12, 20, 4, channels=1)
    torch.nn.init.zeros_(vit.position)
    torch.testing.assert_close(vit(images), vit(shuffled))
    assert (mixer(images) - mixer(shuffled)).abs().max() > 1e-3


def test_the_cost_of_more_patches():
    mixer, vit = (replace(config, image_size=448) for config in (MIXER_B16, VIT_B16))
    assert mixer_flops(mixer) == 4 * mixer_flops(MIXER_B16)
    assert vit_flops(vit) > 4.2 * vit_flops(VIT_B16)
    # the price: token mixing knows the patches, so its weights multiply with them
    grown = mixer_params(mixer) - mixer_params(MIXER_B16)
    assert grown == 12 * (784 - 196) * (2 * 384 + 1)


def test_mixer_refuses_another_image_size_and_vit_takes_it():
    mixer, vit = MLPMixer(8, 2, **SMALL), ViT(8, 2, 2, 3, 12, 20, 4, channels=1)
    assert vit(torch.randn(2, 1, 16, 12)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"images.shape=\(2, 1, 16, 16\): .*8 x 8"):
        mixer(torch.randn(2, 1, 16, 16))


def test_places_between_the_learned_ones_lie_around_them():
    """A table that rises with row and column keeps its values over each 2 x 2 finer places."""
    vit = ViT(16, 2, 1, 1, 2, 4, channels=1)
    at = torch.arange(8.0)
    vit.position.data = torch.stack([at.repeat_interleave(8), at.repeat(8)], 1)
    assert vit.positions(8, 8) is vit.position
    finer = vit.positions(16, 16).view(8, 2, 8, 2, 2).mean((1, 3))
    inner = slice(2, -2)  # at the border there is nothing beyond to go by
    expected = vit.position.view(8, 8, 2)
    torch.testing.assert_close(finer[inner, inner], expected[inner, inner])
    assert vit.positions(8, 16).shape == (128, 2)


def test_enlarged_runs_the_old_network_on_every_group_of_patches():
    torch.manual_seed(0)
    mixer = MLPMixer(8, 2, **SMALL).double().eval()
    big = enlarge(mixer.float(), 2)
    assert not big.training
    small = torch.randn(3, 1, 8, 8)
    # patches repeated 2 x 2: each group of the large grid shows the small image exactly
    patches = small.view(3, 1, 4, 2, 4, 2).permute(0, 1, 2, 4, 3, 5)
    patches = patches.repeat_interleave(2, 2).repeat_interleave(2, 3)
    large = patches.permute(0, 1, 2, 4, 3, 5).reshape(3, 1, 16, 16)
    torch.testing.assert_close(big(large), mixer(small), rtol=1e-4, atol=1e-5)
    token = big.layers[0].token.up
    assert (token.in_features, token.out_features) == (4 * 16, 4 * 5)
    # and a group hears nothing from another
    x = torch.zeros(1, 1, 12, 64)
    x[..., 0] = 1
    heard = (big.layers[0].token(x) - big.layers[0].token(torch.zeros_like(x))).abs().sum((0, 1, 2))
    grid = heard.view(8, 8)
    assert (grid[::2, ::2] > 0).all()
    assert grid[1::2].abs().max() == 0
    assert grid[:, 1::2].abs().max() == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(patch_size=3), ValueError, "patch_size=3: expected a divisor of image_size=8"),
        (dict(patch_size=0), ValueError, "patch_size=0"),
        (dict(image_size=8.0), TypeError, "image_size=8.0"),
        (dict(d_token=0), ValueError, "d_token=0"),
        (dict(n_layer=True), TypeError, "n_layer=True"),
        (dict(n_classes=-1), ValueError, "n_classes=-1"),
        (dict(channels=0), ValueError, "channels=0"),
    ],
)
def test_bad_sizes_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        MLPMixer(**(dict(image_size=8, patch_size=2) | SMALL | changes))


def test_bad_images_and_bad_vits_are_refused():
    vit = ViT(8, 2, 2, 3, 12, 20, 4, channels=1)
    with pytest.raises(ValueError, match=r"images.shape=\(2, 3, 8, 8\)"):
        vit(torch.randn(2, 3, 8, 8))
    for shape in ((2, 1, 9, 8), (2, 1, 8, 9)):
        with pytest.raises(ValueError, match="multiples of patch_size=2"):
            vit(torch.randn(shape))
    with pytest.raises(ValueError, match=r"images.shape=\(8, 8\)"):
        vit(torch.randn(8, 8))
    with pytest.raises(ValueError, match="n_head=5: expected a divisor of d_model=12"):
        ViT(8, 2, 2, 5, 12, 20, 4)
    with pytest.raises(ValueError, match="factor=1"):
        enlarge(MLPMixer(8, 2, **SMALL), 1)


def test_an_enlarged_mixer_keeps_its_type():
    small = MLPMixer(8, 2, 1, 8, 8, 8).double()
    assert {p.dtype for p in enlarge(small, 2).parameters()} == {torch.float64}
