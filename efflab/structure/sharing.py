"""Cross-layer sharing (Lan et al. 2020, ALBERT): fewer weights, the same arithmetic.

Both functions return a changed copy. A shared module is one object that several layers hold, so
`parameters()` counts it once, its gradient is the sum over the layers that use it, and a forward
pass still runs it once per layer.
"""

from copy import deepcopy
from dataclasses import replace

import torch

from efflab.arguments import check_module
from efflab.conversion import PreTrainedModel, convert
from efflab.errors import require, require_int, require_one_of
from efflab.model import Transformer

PARTS = {"none": set(), "attention": {"attention"}, "ffn": {"ffn"}, "all": {"attention", "ffn"}}


def share_layers(model: Transformer, what: str) -> Transformer:
    """A copy in which every layer uses the first one's sub-block, LayerNorm included.

    `what` is "attention", "ffn" or "all" (Lan et al. 2020, section 3.1); what the model shares
    already stays shared. Its layers must be of one shape: prune afterwards, not before.
    """
    require_one_of("what", what, [name for name in PARTS if name != "none"])
    for part in sorted(PARTS[what]):
        shapes = {_shapes(getattr(layer, part)) for layer in model.layers}
        require(len(shapes) == 1, "what", what, f"layers whose {part} has the same shapes")
    shared = deepcopy(model)
    for layer in shared.layers:
        for part in PARTS[what]:
            setattr(layer, part, getattr(shared.layers[0], part))
    parts = PARTS[what] | PARTS[model.config.share]
    share = next(name for name, value in PARTS.items() if value == parts)
    shared.config = replace(model.config, share=share)
    return shared


def _shapes(module: torch.nn.Module) -> tuple:
    """Those of its parameters, and the windows inside it: a layer's own part of the scores."""
    windows = [getattr(m, "window", getattr(m, "window_size", None)) for m in module.modules()]
    return *((name, p.shape) for name, p in module.named_parameters()), *windows


def share_qkv(model: Transformer, n_layers: int) -> Transformer:
    """A copy whose first `n_layers` layers make queries, keys and values with one projection.

    Only `qkv` is shared: output projections and LayerNorms stay each layer's own. 1 shares
    nothing; each further layer removes 3 d_model^2 + 3 d_model parameters. An attention that
    something wraps (`with_windows`) has no `qkv` of its own: share first.
    """
    require_int("n_layers", n_layers)
    total = len(model.layers)
    require(n_layers <= total, "n_layers", n_layers, f"at most the model's {total} layers")
    bodies = [layer.attention.body for layer in model.layers[:n_layers]]
    others = [type(body).__name__ for body in bodies if not hasattr(body, "qkv")]
    require(not others, "attention", ", ".join(others), "a layer with a `qkv`, such as Attention")
    shapes = {_shapes(body.qkv) for body in bodies}
    require(len(shapes) == 1, "n_layers", n_layers, "layers whose qkv has the same shapes")
    shared = deepcopy(model)
    first = shared.layers[0].attention.body.qkv
    for layer in shared.layers[:n_layers]:
        layer.attention.body.qkv = first
    return shared


def from_albert(albert: PreTrainedModel) -> Transformer:
    """Our Transformer with the weights of a `transformers.AlbertModel`, checked for equal outputs.

    Only ALBERT as released, with one group of one layer; anything else is a `ValueError`.
    """
    config = albert.base_model.config
    require_one_of("model_type", config.model_type, ["albert"])
    factorized = config.embedding_size != config.hidden_size
    require(factorized, "embedding_size", config.embedding_size, "a width other than hidden_size")
    return convert(albert)


check_module(__name__)
