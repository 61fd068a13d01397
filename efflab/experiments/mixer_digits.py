"""MLP-Mixer against a ViT of equal parameters on the digits, by seed and number of images."""

from itertools import product
from statistics import mean

import torch
import torch.nn.functional as F
from torch import nn

from efflab import data, train
from efflab.bench import one_thread
from efflab.errors import require, require_int, require_one_of
from efflab.experiments.record import run_cases
from efflab.structure.mixer import MixerConfig, MLPMixer
from efflab.structure.vit import ViT, ViTConfig

NAME = "mixer-digits"
MIXER = MixerConfig(8, 2, n_layer=2, d_model=48, d_token=32, d_channel=96, n_classes=10, channels=1)
VIT = ViTConfig(8, 2, n_layer=2, n_head=4, d_model=36, d_ff=72, n_classes=10, channels=1)
KINDS = ("mixer", "vit")
N_IMAGES, N_STEPS, BATCH_SIZE, LR = 1437, 200, 64, 3e-3
SEEDS = (0, 1, 2, 3, 4)


def make(kind: str, seed: int = 0) -> nn.Module:
    """The Mixer or the ViT of the comparison, of 22 thousand parameters, for the 8 x 8 digits."""
    require_one_of("kind", kind, KINDS)
    torch.manual_seed(seed)
    return MLPMixer(**vars(MIXER)) if kind == "mixer" else ViT(**vars(VIT))


def train_model(kind: str, seed: int = 0, n_images: int = N_IMAGES, n_steps: int = N_STEPS):
    """One of the two, trained on the first `n_images` digits: `n_steps` of 64 images, AdamW.

    The same seed gives both the same batches. Needs 10 to 1,437 images.
    """
    require_int("n_images", n_images, 10)
    require(n_images <= N_IMAGES, "n_images", n_images, "at most {high}", high=N_IMAGES)
    return fit(make(kind, seed), seed, n_images, n_steps)


def fit(model: nn.Module, seed: int = 0, n_images: int = N_IMAGES, n_steps: int = N_STEPS):
    """The model, trained in place on the first `n_images` digits as both are."""
    images, labels, _, _ = data.digits()

    def batch(step):
        rng = torch.Generator().manual_seed(seed * 10**6 + step)
        indices = torch.randint(n_images, (BATCH_SIZE,), generator=rng)
        return images[indices, None], labels[indices]

    train.fit(model, batch, n_steps, lr=LR, loss_fn=train.classification_loss)
    return model


@torch.no_grad()
def accuracy(model: nn.Module, scale: int = 1) -> float:
    """Accuracy on the 360 test digits, enlarged `scale` times per side."""
    _, _, images, labels = data.digits()
    images = images[:, None]
    if scale > 1:
        images = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
    return (model(images).argmax(-1) == labels).float().mean().item()


def run_one(n_images: int, seed: int) -> dict:
    """Accuracy of both models."""
    return {kind: round(accuracy(train_model(kind, seed, n_images)), 4) for kind in KINDS}


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Both models, five seeds, three training sets; recorded as data/experiments/mixer-digits."""
    settings = dict(mixer=_sizes(MIXER), vit=_sizes(VIT))
    settings |= dict(n_steps=N_STEPS, batch_size=BATCH_SIZE, lr=LR)
    cases = [dict(n_images=n, seed=seed) for n, seed in product((100, 400, N_IMAGES), SEEDS)]
    packages = ("scikit-learn",)  # whose digits these are
    return run_cases(NAME, cases, run_one, settings=settings, versions_of=packages, fresh=fresh)


def _sizes(config: MixerConfig | ViTConfig) -> dict[str, int]:
    """What distinguishes the models; digits have one channel and ten classes."""
    return {k: v for k, v in vars(config).items() if k not in ("n_classes", "channels")}


def by_images(runs: list[dict]) -> dict[int, dict[str, dict[str, float]]]:
    """n_images -> kind -> mean, low and high accuracy over the seeds."""
    return {
        n: {
            kind: dict(mean=mean(values), low=min(values), high=max(values))
            for kind, values in by_seed(runs, n).items()
        }
        for n in sorted({run["n_images"] for run in runs})
    }


def by_seed(runs: list[dict], n_images: int = N_IMAGES) -> dict[str, list[float]]:
    """kind -> accuracy of each seed, in the same order for both, so that they pair."""
    selected_runs = sorted((r for r in runs if r["n_images"] == n_images), key=lambda r: r["seed"])
    return {kind: [run[kind] for run in selected_runs] for kind in KINDS}
