"""Notebook 02's exercises: what is asked, and how an answer is judged."""

import torch
from torch import nn

from efflab.experiments import mixer_digits
from efflab.lab import Exercise, number, tr
from efflab.model import n_parameters
from efflab.structure.mixer import MixerConfig, MixerLayer, MLPMixer, mixer_params


def _token_weights(answer):
    for side, patch_size, d_token in ((224, 16, 384), (448, 16, 384), (64, 8, 10)):
        layer = MixerLayer((side // patch_size) ** 2, 8, d_token, 8)
        what = f"token_weights({side}, {patch_size}, {d_token})"
        yield what, n_parameters(layer.token), answer(side, patch_size, d_token)


def _mix_tokens(answer):
    rng = torch.Generator().manual_seed(0)
    for S, C, hidden in ((4, 3, 5), (9, 16, 2)):
        x = torch.randn(2, S, C, generator=rng)
        up, down = (torch.randn(*shape, generator=rng) for shape in ((hidden, S), (S, hidden)))
        expected = (down @ nn.functional.gelu(up @ x)).numpy()
        y = answer(x, up, down)
        yield tr("mix_tokens, x: {shape}", shape=tuple(x.shape)), expected, y.detach().numpy()


def _attention_over_mixing(answer):
    for S, C, d_token in ((196, 768, 384), (49, 512, 256), (3136, 768, 384)):
        expected = (8 * S * C**2 + 4 * S**2 * C) / (4 * S * C * d_token)
        yield f"cost_ratio({S}, {C}, {d_token})", expected, answer(S, C, d_token)


MOST, LEAST = 5_518, 95  # a quarter of section 3's parameters, per cent of the held-out digits


def _small(answer):
    sizes = dict(image_size=8, n_classes=10, channels=1) | dict(answer)
    n = mixer_params(MixerConfig(**sizes))
    what = tr("parameters: {n}, at most {most}", n=number(n), most=number(MOST))
    yield what, True, n <= MOST
    torch.manual_seed(0)
    right = 100 * mixer_digits.accuracy(mixer_digits.fit(MLPMixer(**sizes)))
    what = "digits classified correctly: {right}%, at least {least}%"
    yield tr(what, right=number(right, 3), least=LEAST), True, right >= LEAST


EXERCISES = {
    "02-1": Exercise(_mix_tokens),
    "02-2": Exercise(_token_weights),
    "02-3": Exercise(_attention_over_mixing),
    "02-4": Exercise(_small),
}
