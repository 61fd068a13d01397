"""The part of a model that a tensor x pipeline split places on a device, as a smaller model.

Tensor parallelism divides heads and hidden units, those of each expert too; experts are not placed
on devices of their own (expert parallelism). What is narrow (norms, routers, the maps to latent
vectors) counts as divided, which is right to a few parts in a hundred.
"""

from dataclasses import replace
from math import gcd

from efflab import layers
from efflab.arguments import check_module, unchecked
from efflab.config import ModelConfig
from efflab.rules import Size


def stage_model(config: ModelConfig, n_layer: Size, tp: Size) -> ModelConfig:
    """The heaviest stage of `n_layer` layers, of all its `tp` ranks together: a rank has 1 / tp.

    It has the most layers with experts. Heads of keys and values, if fewer than tp, are replicated,
    one a rank. In a pipeline a stage has one table: the first the input's, the last the output's.
    """
    attention, experts = config.attention, config.experts
    if tp > config.n_kv_head:
        attention = replace(attention, n_kv_head=tp)
    if experts is not None:
        starts = range(0, config.n_layer, n_layer)
        dense = experts.dense_layers
        stages = [tuple(d - s for d in dense if s <= d < s + n_layer) for s in starts]
        experts = replace(experts, dense_layers=min(stages, key=len))
    tied = config.tied or n_layer < config.n_layer
    return replace(config, n_layer=n_layer, attention=attention, experts=experts, tied=tied)


def layer_params(config: ModelConfig) -> int:
    """Parameters of one layer, with all its experts if the model has any."""
    attention = unchecked(layers.attention_params)(config)
    if config.experts is None or config.n_expert_layers == 0:
        return attention + unchecked(layers.ffn_params)(config)
    return attention + layers.expert_layer_params(config, config.experts.n_expert)


def hidden_units(config: ModelConfig) -> int:
    """What tp has to divide: the greatest common divisor of the hidden units of the feed-forward,
    of an expert and of the shared experts."""
    experts = config.experts
    if experts is None:
        return config.d_ff
    dense = config.d_ff if config.n_expert_layers < config.n_layer else 0
    return gcd(dense, experts.d_ff, experts.d_shared)


def divides_kv_heads(config: ModelConfig, tp: Size) -> bool:
    """Whether each of tp ranks has as many heads of keys and values, or a replica of one."""
    return config.n_kv_head % tp == 0 or tp % config.n_kv_head == 0


check_module(__name__)
