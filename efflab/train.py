"""How models learn: one loop with a progress bar, atomic checkpoints, and resume after a kill."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.errors import require
from efflab.rules import Infinite, NonNegative, Positive, Size
from efflab.tensors import Ids, Integers, Matrix, Numbers, require_finite
from efflab.weights import fill, named_tensors, read_tensors, save_tensors

Batch = tuple[Tensor, Tensor]


def language_model_loss(model: Callable, ids: Ids, targets: Ids) -> Tensor:
    """Mean cross-entropy in nats of targets (B,T) under the model's logits of ids (B,T)."""
    return token_loss(model(ids), targets)


def token_loss(logits: Tensor, targets: Integers) -> Tensor:
    """Mean cross-entropy in nats of targets (B,T) under logits (B,T,V)."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def classification_loss(model: nn.Module, inputs: Numbers, labels: Integers) -> Tensor:
    """Mean cross-entropy in nats of labels (B,) under the model's logits (B, classes)."""
    return F.cross_entropy(model(inputs), labels)


def learning_rate_factor(step: int, n_steps: Size) -> float:
    """Share of the peak rate at `step`: linear warm-up over 5 % of the run, then to zero."""
    n_warmup = max(1, round(0.05 * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    return (n_steps - step) / max(1, n_steps - n_warmup)


def adamw(model: nn.Module, lr: NonNegative) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019); matrices decay, biases and norms do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    return [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized (Jordan 2024), for the matrices inside a network.

    `torch.optim.Muon` does the same in bfloat16, which a CPU without bf16 units emulates: a step
    of `stdlib-gpt` took four times as long with it. This one stays in the parameter's type.
    The update's root mean square is 0.2 lr, as AdamW's (Liu et al. 2025, equation 4).
    """

    def __init__(
        self, parameters: Iterable, lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalize(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * group["lr"] * max(p.shape) ** 0.5)


def orthogonalize(g: Matrix, n_steps: Size = 5) -> Tensor:
    """Nearly the closest matrix with all singular values 1, by Newton-Schulz (Jordan 2024)."""
    tall = g.shape[0] > g.shape[1]
    x = (g.T if tall else g) / (g.norm() + 1e-7)
    for _ in range(n_steps):
        gram = x @ x.T
        # Jordan's coefficients: they grow small singular values fast, and end near 1, not at it
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.T if tall else x


def muon(
    model: nn.Module, lr: NonNegative = 6e-3, adam_lr: NonNegative = 3e-3
) -> list[torch.optim.Optimizer]:
    """Muon on the layers' matrices, AdamW on embeddings, norms and biases."""
    hidden = [p for p in model.layers.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if not any(p is h for h in hidden)]
    return [
        Muon(hidden, lr=lr),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def fit(
    model: nn.Module,
    batch: Callable[[int], Batch],
    n_steps: Size,
    *,
    optimizers: list[torch.optim.Optimizer] | None = None,
    stop: Size | None = None,
    until: Callable[[list[float]], bool] | None = None,
    lr: Positive = 3e-3,
    loss_fn: Callable[[nn.Module, Tensor, Tensor], Tensor] = language_model_loss,
    clip: Infinite = 1.0,
    checkpoint: Path | None = None,
    checkpoint_every: Size = 200,
    progress: bool = False,
) -> list[float]:
    """Train `model` in place for `n_steps`; returns each step's loss in nats.

    `batch(step)` gives (inputs, targets) and depends on the step alone, so that a killed run that
    restarts with the same `checkpoint` file continues exactly where it was.
    `stop`: end after so many steps of the `n_steps` schedule, as the start of a longer run does.
    The optimizers' rates are the schedule's peaks; afterwards they are the same again.
    `until(losses)`: end as soon as it returns True for the losses so far. A loss or gradient that
    is not finite is a `ValueError`, raised before it reaches the weights or the file.
    """
    end = n_steps if stop is None else stop
    require(end <= n_steps, "stop", stop, f"at most n_steps={n_steps}")
    require(clip > 0, "clip", clip, "a positive number")
    optimizers = optimizers or adamw(model, lr)
    peaks = [group["lr"] for o in optimizers for group in o.param_groups]
    losses: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        losses = _resume(checkpoint, model, optimizers, end)
    if losses and until is not None and until(losses):
        end = len(losses)
    model.train()
    try:
        for step in _steps(len(losses), end, losses, progress):
            _set_rates(optimizers, peaks, learning_rate_factor(step, n_steps))
            model.zero_grad(set_to_none=True)
            loss = loss_fn(model, *batch(step))
            loss.backward()
            norm = gradient_norm(model, loss, step)
            nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            last = step + 1 == end or (until is not None and until(losses))
            if checkpoint is not None and (last or (step + 1) % checkpoint_every == 0):
                _save(checkpoint, model, optimizers, losses)
            if last:
                break
    finally:
        _set_rates(optimizers, peaks, 1.0)
    _require_finite_weights(model, len(losses))
    model.eval()
    return losses


def _set_rates(optimizers: list[torch.optim.Optimizer], peaks: list[float], factor: float) -> None:
    groups = [group for o in optimizers for group in o.param_groups]
    for group, peak in zip(groups, peaks, strict=True):
        group["lr"] = peak * factor


def gradient_norm(model: nn.Module, loss: Tensor, step: int) -> Tensor:
    """The norm of all gradients. Every loop calls it before an optimizer step.

    A loss or a gradient that is not finite is a `ValueError` that names it, before the weights
    change.
    """
    require(bool(loss.isfinite()), f"loss at step {step}", loss.item(), "a finite number")
    gradients = {
        name: getattr(p.grad, "to_local", lambda p=p: p.grad)()  # of a DTensor the local shard
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    norm = nn.utils.get_total_norm(gradients.values())
    if not norm.isfinite():
        for name, gradient in gradients.items():
            require_finite(f"gradient of {name} at step {step}", gradient)
    require(bool(norm.isfinite()), f"gradient norm at step {step}", norm.item(), "a finite number")
    return norm


def _require_finite_weights(model: nn.Module, n_steps: int) -> None:
    for name, weight in model.named_parameters():
        require_finite(f"{name} after {n_steps} steps", weight)


def _steps(start: int, n_steps: int, losses: list[float], progress: bool):
    """The steps still to do, under a progress bar that shows the last loss."""
    from tqdm.auto import tqdm

    with tqdm(total=n_steps, initial=start, disable=not progress, mininterval=1.0) as bar:
        for step in range(start, n_steps):
            yield step
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)


def _save(path: Path, model: nn.Module, optimizers, losses: list[float]) -> None:
    """Save what a resumed run needs, as tensors only: loading unpickles nothing."""
    _require_finite_weights(model, len(losses))
    tensors = {f"model.{k}": v for k, v in named_tensors(model).items()}
    for i, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    save_tensors(path, tensors, {"optimizers": _class_names(optimizers)})


def _class_names(optimizers) -> str:
    return json.dumps([type(optimizer).__name__ for optimizer in optimizers])


def _resume(path: Path, model: nn.Module, optimizers, end: int) -> list[float]:
    """Restore model and optimizers; returns the losses so far. Refuses another run's file."""
    tensors, metadata = read_tensors(path, "delete it to begin the training anew")
    is_training = "losses" in tensors and "optimizers" in metadata
    require(is_training, "checkpoint", str(path), "a file that a training saved")
    losses = tensors.pop("losses").tolist()
    own, saved = _class_names(optimizers), metadata["optimizers"]
    require(own == saved, "optimizers", own, f"{saved}, which {path} was saved with")
    require(len(losses) <= end, "n_steps", end, f"at least the {len(losses)} steps in {path}")
    states = [_state(path, tensors, i, optimizer) for i, optimizer in enumerate(optimizers)]
    weights = {name.removeprefix("model."): t for name, t in tensors.items()}
    fill(model, weights, str(path))
    for optimizer, state in zip(optimizers, states, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return losses


def _state(path: Path, tensors: dict[str, Tensor], i: int, optimizer) -> dict[int, dict]:
    """The state of optimizer `i`, popped from `tensors`: scalars, or of its parameters' shapes."""
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    prefix = f"optimizer.{i}."
    for name in [name for name in tensors if name.startswith(prefix)]:
        index, key = name.removeprefix(prefix).split(".")
        value = tensors.pop(name)
        fits = int(index) < len(shapes) and value.shape in ((), shapes[int(index)])
        require(fits, f"{path}: {name}", tuple(value.shape), "the shape of the model's parameter")
        state.setdefault(int(index), {})[key] = value
    return state


check_module(__name__)
