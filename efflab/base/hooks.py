"""Looking at what parts of a model are given while it runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from math import prod

from torch import Tensor, nn

from efflab.arguments import check_arguments
from efflab.errors import require

Look = Callable[[str, Tensor], object]
"""What is called with a module's name and its input, just before the module runs."""


@check_arguments
@contextmanager
def watch_inputs(modules: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """While inside, `look(name, x)` sees the first input of each of the modules, detached."""

    def hook(name: str) -> Callable:
        def pre_hook(module, args) -> None:  # what a pre-hook returns would become the input
            look(name, args[0].detach())

        return pre_hook

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_pre_hook(hook(name)).remove)
        yield


@check_arguments
def as_rows(x: Tensor) -> Tensor:
    """x (..., n) as rows (N, n), as a linear layer takes it: a vector is one row."""
    require(x.dim() > 0, "x.shape", tuple(x.shape), "one dimension at least")
    return x.reshape(prod(x.shape[:-1]), x.shape[-1])


@check_arguments
def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Name -> each linear layer of the model; one in several places is there once, first name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


@check_arguments
def linear_places(model: nn.Module) -> dict[str, list[str]]:
    """Name of each weight in the layers -> all places whose linear layer multiplies by it.

    In the order of computation. `named_modules` and `named_parameters` tell what several places
    share under its first name alone, and two layers may hold one weight without being one.
    """
    names = {weight: name for name, weight in model.named_parameters()}
    places: dict[str, list[str]] = {}
    for place, module in model.layers.named_modules(prefix="layers", remove_duplicate=False):
        if isinstance(module, nn.Linear):
            name = names.get(module.weight, f"{place}.weight")  # a parametrized one is made anew
            places.setdefault(name, []).append(place)
    return places


@check_arguments
def share_as(model: nn.Module, original: nn.Module) -> nn.Module:
    """Let places of `model` that hold one linear layer in `original` hold one module; the model.

    For what was made of `original` by a library that goes from place to place.
    """
    first: dict[nn.Module, str] = {}
    for place, module in original.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear) and first.setdefault(module, place) != place:
            model.set_submodule(place, model.get_submodule(first[module]))
    return model


@check_arguments
def watching(model: nn.Module, look: Look):
    """While inside, `look(name, x)` sees each linear layer's input as rows (n, in).

    Of a layer in several places it sees every use, under the first one's name.
    """
    return watch_inputs(linear_layers(model), lambda name, x: look(name, as_rows(x)))
