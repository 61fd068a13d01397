"""Looking at what parts of a model are given while it runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

Look = Callable[[str, Tensor], object]
"""What is called with a module's name and its input, just before the module runs."""


@contextmanager
def inputs_seen(modules: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """While inside, `look(name, x)` sees the first input of each of the modules, detached."""

    def hook(name: str) -> Callable:
        def seen(module, args) -> None:  # what a pre-hook returns would become the input
            look(name, args[0].detach())

        return seen

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_pre_hook(hook(name)).remove)
        yield


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Name -> each linear layer of the model."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def watching(model: nn.Module, look: Look):
    """While inside, `look(name, x)` sees each linear layer's input as rows (n, in)."""
    return inputs_seen(linear_layers(model), lambda name, x: look(name, x.flatten(0, -2)))
