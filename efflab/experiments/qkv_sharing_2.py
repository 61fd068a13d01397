"""Loss with QKV shared in no, half and all layers of a model that trained long enough to need them.

Answers `qkv-share-half`: ten times the steps of `qkv-sharing`. Its controls are a
convolution of 3 tokens in attention's place, which attention has to beat, and whole layers shared.
"""

from collections.abc import Iterable, Mapping

import torch

from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate
from efflab.experiments.dynamic_attention import make_model
from efflab.experiments.qkv_sharing import BATCH_SIZE, CONFIG, trained_loss
from efflab.experiments.variants import paired_losses, run_variants
from efflab.model import Transformer
from efflab.structure.sharing import share_layers, share_qkv

NAME = "qkv-sharing-2"
N_STEPS, N_WINDOWS, KERNEL_SIZE = 2500, 256, 3
SEEDS = range(100, 112)
SHARED = {"none": 1, "half": CONFIG.n_layer // 2, "all": CONFIG.n_layer}
VARIANTS = (*SHARED, "convolution", "layers")
CASES = {
    "knee-half": ("half", "none"),
    "knee-past-half": ("all", "half"),
    "knee-all": ("all", "none"),
    "knee-convolution": ("none", "convolution"),
    "knee-layers": ("layers", "none"),
}
"""Id of evidence -> whose loss, less whose."""


def make(variant: str, seed: int) -> Transformer:
    """The untrained model of one of `VARIANTS`; what they have in common starts with equal weights.

    "convolution": a dynamic one of 3 tokens in attention's place; "layers": one layer, six times.
    """
    require_one_of("variant", variant, VARIANTS)
    if variant == "convolution":
        return make_model(f"dynamic-{KERNEL_SIZE}", seed, CONFIG)
    torch.manual_seed(seed)
    model = Transformer(CONFIG)
    return share_layers(model, "all") if variant == "layers" else share_qkv(model, SHARED[variant])


def run_one(variant: str, seed: int) -> dict:
    """Held-out loss after training."""
    model = make(variant, seed)
    return dict(loss=round(trained_loss(model, seed, N_STEPS, n_windows=N_WINDOWS), 4))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in nats a token, paired by seed."""
    return paired_losses(runs, CASES)


def settings() -> dict:
    """What all runs have in common."""
    shape = dict(n_layer=CONFIG.n_layer, d_model=CONFIG.d_model, n_head=CONFIG.n_head)
    shape |= dict(seq_len=CONFIG.max_len, batch_size=BATCH_SIZE, n_steps=N_STEPS)
    return shape | dict(kernel_size=KERNEL_SIZE, n_windows=N_WINDOWS)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every variant with every seed; recorded as data/experiments/qkv-sharing-2."""
    return run_variants(NAME, run_one, VARIANTS, SEEDS, settings(), fresh=fresh)
