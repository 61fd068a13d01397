"""What experiments that train a small language model of Python source have in common."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from efflab import data, evaluate, train

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def training_windows(batch_size: int, seq_len: int, first: int) -> Callable[[int], train.Batch]:
    """A function from a step to its batch (ids, targets), the same for all runs with that `first`.

    By convention `first` is a seed's million, so that no two seeds share a batch.
    """
    stream = data.stdlib_tokens("train")
    return lambda step: data.random_windows(stream, batch_size, seq_len, first + step)


def loss_in(*, bf16: bool) -> Loss:
    """The language-model loss, its products under bf16's autocast or not; itself in fp32."""

    def loss(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(ids)
        return train.token_loss(logits.float(), targets)

    return loss


@torch.no_grad()
def held_out_loss(model: nn.Module, n_windows: int, seq_len: int) -> float:
    """Nats per token on `n_windows` held-out windows, the same for all models."""
    held_out = data.random_windows(data.stdlib_tokens("held-out"), n_windows, seq_len, 0)
    return train.language_model_loss(model, *held_out).item()


def held_out_bits(model: nn.Module, n_windows: int, seq_len: int, seed: int) -> float:
    """Bits per byte of the second halves of the seed's random held-out windows."""
    held_out = data.stdlib_tokens("held-out")
    ids, targets = data.random_windows(held_out, n_windows, seq_len, seed)
    bits, n_bytes = evaluate.half_window_bits(model, torch.cat([ids, targets[:, -1:]], dim=1))
    return float(bits.sum() / n_bytes.sum())
