"""Forward hooks: observe the inputs of a model's modules while it runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod

from torch import Tensor, nn

from efflab.errors import require

Look = Callable[[str, Tensor], object]
"""Called with a module's name and its input, just before the module runs."""


@contextmanager
def watch_inputs(modules: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """Inside the block, `look(name, x)` is called with each module's first input, detached."""

    def show(name: str, module, args) -> None:  # what a pre-hook returns would become the input
        look(name, args[0].detach())

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_pre_hook(partial(show, name)).remove)
        yield


def as_rows(x: Tensor) -> Tensor:
    """x (..., n) as rows (N, n), as a linear layer takes it: a vector is one row."""
    require(x.dim() > 0, "x.shape", tuple(x.shape), "one dimension at least")
    return x.reshape(prod(x.shape[:-1]), x.shape[-1])


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """{name: linear layer} of the model; a shared layer once, under its first name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def replaceable_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """`linear_layers` whose place another module can take.

    Not those whose weight a module multiplies with itself: it names them in `READS_WEIGHTS`.
    """
    read = {
        getattr(module, name)
        for module in model.modules()
        for name in getattr(module, "READS_WEIGHTS", ())
    }
    return {name: m for name, m in linear_layers(model).items() if m not in read}


def linear_places(model: nn.Module) -> dict[str, list[str]]:
    """{weight's name: places in the layers whose linear map uses it}, in order of computation.

    `named_modules` and `named_parameters` list a shared module or weight under its first name
    alone, and two distinct modules may share one weight.
    """
    names = {weight: name for name, weight in model.named_parameters()}
    places: dict[str, list[str]] = {}
    for place, module in model.layers.named_modules(prefix="layers", remove_duplicate=False):
        if isinstance(module, nn.Linear):
            # a parametrized weight is a new tensor
            name = names.get(module.weight, f"{place}.weight")
            places.setdefault(name, []).append(place)
    return places


def share_as(model: nn.Module, original: nn.Module) -> nn.Module:
    """Share linear layers in `model` where `original` shares them; returns `model`.

    For a copy of `original` made by a library that replaces each place by itself.
    """
    first: dict[nn.Module, str] = {}
    for place, module in original.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear) and first.setdefault(module, place) != place:
            model.set_submodule(place, model.get_submodule(first[module]))
    return model


def watching(model: nn.Module, look: Look):
    """Inside the block, `look(name, x)` gets each linear layer's input as rows (n, in).

    A shared layer's uses all come under its first name.
    """
    return watch_inputs(linear_layers(model), lambda name, x: look(name, as_rows(x)))
