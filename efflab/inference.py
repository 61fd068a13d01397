"""What a served model costs at least: a prompt, and one token after it. No torch here.

These are bounds: FLOPs that no kernel can save, bytes that have to be read. (Pope et al. 2022,
section 2, has the same arithmetic for plain decoders.)
"""

from math import ceil

from efflab import layers
from efflab.arguments import check_module
from efflab.config import ModelConfig
from efflab.cost import FORMATS, Format, active_params, flops_by_part, kv_cache_bytes
from efflab.rules import Count, Positive, Size


def prefill_flops(config: ModelConfig, seq_len: Size, batch_size: Size = 1) -> int:
    """The least that a prompt costs: scores of visible pairs alone, logits of the last token.

    An encoder's are those of its hidden states, without logits.
    """
    parts = flops_by_part(config, seq_len, batch_size)
    pairs = sum(_visible_pairs(config, seq_len, window) for window in config.windows)
    logits = parts["logits"] // seq_len if config.causal else 0
    linear = parts["projections"] + parts["ffn"] + parts["embedding"]
    return linear + 2 * batch_size * pairs * layers.score_weights(config) + logits


def _visible_pairs(config: ModelConfig, seq_len: int, window: int | None) -> int:
    """Pairs of a query and a key that it sees, in one layer."""
    width = window or 2 * seq_len  # to both ends of the text
    sides = (width - 1,) if config.causal else (width // 2, (width - 1) // 2)
    reaches = [min(side, seq_len - 1) for side in sides]
    # a triangle of each side lies beyond the text
    return seq_len + sum(side * (seq_len - 1) - side * (side - 1) // 2 for side in reaches)


def decode_flops(
    config: ModelConfig, n_cached: Count, batch_size: Size = 1, *, absorbed: bool = True
) -> int:
    """FLOPs of one more token each after `n_cached` tokens, with its logits.

    `absorbed`: latent attention multiplies queries with the narrow vectors that are cached, as
    DeepSeek deploys it (DeepSeek-AI 2024, section 2.1.2); else it expands all of them again at
    every token, as `transformers` does. Other attention is the same in both.
    """
    parts = flops_by_part(config, 1, batch_size)
    n_keys = sum(min(n_cached + 1, window or n_cached + 1) for window in config.windows)
    products = n_keys * layers.score_weights(config, absorbed)
    if not absorbed:
        # flops_by_part has the new token's vector
        products += (n_keys - config.n_layer) * layers.expansion_weights(config)
    parts["scores"] = 2 * batch_size * products
    return sum(parts.values())


def decode_bytes(
    config: ModelConfig,
    n_cached: Count,
    batch_size: Size = 1,
    *,
    format: Format = "bf16",
    value_bytes: Positive = 2,
) -> int:
    """Bytes that one step reads at least: every weight in use, and the cache.

    Of an input table that is not the output too, a row a token. All texts may use the same experts,
    so that more than one text adds none to this bound.
    """
    cache = kv_cache_bytes(config, n_cached, batch_size, value_bytes=value_bytes)
    return _weight_bytes(config, format) + cache


def prefill_bytes(
    config: ModelConfig,
    seq_len: Size,
    batch_size: Size = 1,
    *,
    format: Format = "bf16",
    value_bytes: Positive = 2,
) -> int:
    """Bytes that a prompt moves at least: every weight in use once, and the cache as it is written.

    An encoder has no cache, and reads rows of its token table alone.
    """
    if not config.causal:
        return _weight_bytes(config, format)
    # a step after the prompt reads the cache that the prompt writes
    return decode_bytes(config, seq_len, batch_size, format=format, value_bytes=value_bytes)


def _weight_bytes(config: ModelConfig, format: str) -> int:
    """Bytes of the weights that one token uses, without a table that is only looked up."""
    read = active_params(config)
    if not config.tied or not config.causal:
        read -= config.vocab_size * config.embed_dim
    return ceil(read * FORMATS[format] / 8)


check_module(__name__)
