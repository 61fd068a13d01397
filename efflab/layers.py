"""What the sub-blocks of a Transformer hold: their parameters, and the weights of their products.

Sizes are those of `ModelConfig`. A product is one multiply-accumulate, 2 FLOPs. No torch here.
"""

from efflab.arguments import check_module, unchecked
from efflab.config import ModelConfig
from efflab.rules import Count


def attention_weights(config: ModelConfig) -> int:
    """Weights of one layer's queries, keys, values and output: each is one product a token.

    Latent attention: down to the ranks, up to the heads' keys and values, output (DeepSeek-AI 2024,
    appendix C).
    """
    C, H, D = config.d_model, config.n_head, config.head_dim
    latent = config.attention.latent
    if latent is None:
        return 2 * C * D * (H + config.n_kv_head)
    query = H * (latent.nope_dim + latent.rope_dim)
    queries = C * query if latent.q_rank is None else latent.q_rank * (C + query)
    narrow = C * (latent.kv_rank + latent.rope_dim)
    return queries + narrow + unchecked(expansion_weights)(config) + H * latent.v_dim * C


def expansion_weights(config: ModelConfig) -> int:
    """Weights that expand one narrow vector into the heads' keys and values; 0 if not latent."""
    latent = config.attention.latent
    if latent is None:
        return 0
    return latent.kv_rank * config.n_head * (latent.nope_dim + latent.v_dim)


def attention_params(config: ModelConfig) -> int:
    """One layer's queries, keys, values and output with biases and norms, and the block's norm."""
    C, D, attention = config.d_model, config.head_dim, config.attention
    q, kv = config.n_head * D, config.n_kv_head * D
    into, out = q + 2 * kv, C
    norms = {"none": (), "head": (D, D)}.get(attention.qk_norm, (q, kv))
    latent = attention.latent
    if latent is not None:
        q_rank, kv_rank = latent.q_rank or 0, latent.kv_rank
        norms, into = (q_rank, kv_rank), q_rank + kv_rank + latent.rope_dim
    biases = {"all": into + out, "qkv": into, "out": out, "none": 0}[attention.bias]
    sinks = config.n_head if attention.sinks else 0
    block = -(-config.norms.per_layer // 2) * _norm_params(config, C)
    inside = sum(_norm_params(config, width, attention.qk_norm_bias) for width in norms)
    return unchecked(attention_weights)(config) + biases + sinks + inside + block


def ffn_params(config: ModelConfig) -> int:
    """A dense layer's feed-forward (two maps, three if gated) with biases, and the block's norm."""
    block = config.norms.per_layer // 2 * _norm_params(config, config.d_model)
    return _map_params(config, config.d_ff) + block


def _map_params(config: ModelConfig, d_ff: int) -> int:
    """Parameters of a feed-forward of that width; xIELU has two of its own."""
    n_up = 2 if config.feed_forward.gated else 1
    biases = n_up * d_ff + config.d_model if config.feed_forward.bias else 0
    return (n_up + 1) * config.d_model * d_ff + biases + 2 * (config.activation == "xielu")


def expert_layer_params(config: ModelConfig, n_expert: Count) -> int:
    """A layer with `n_expert` of the experts, what is shared, the router, and the block's norm.

    0 without experts.
    """
    experts, C = config.experts, config.d_model
    if experts is None:
        return 0
    shared = _map_params(config, experts.d_shared) if experts.d_shared else 0
    gates = experts.n_expert * (C + experts.router_bias) + (C if experts.shared_gate else 0)
    block = config.norms.per_layer // 2 * _norm_params(config, C)
    return n_expert * _map_params(config, experts.d_ff) + shared + gates + block


def _norm_params(config: ModelConfig, width: int, bias: bool = True) -> int:
    n_vectors = {"layer": 1 + (config.norms.bias and bias), "rms": 1, "plain": 0}
    return n_vectors[config.norms.kind] * width


def embedding_params(config: ModelConfig) -> int:
    """Tables of tokens, positions and types, the projection of a factorized embedding, and norms.

    By default one norm: the embedding's in a post-norm model, the final one in a pre-norm model.
    What is one for all layers is here too; a first norm that is missing is taken off.
    """
    C, E, norms = config.d_model, config.embed_dim, config.norms
    rows = config.position_rows or config.max_len
    # OPT-350m's positions are added to what is as wide as the layers
    learned = rows * (E if config.embed_maps == "in" else C) if config.positions == "learned" else 0
    relative = rows * C + _norm_params(config, C) if config.positions == "relative" else 0
    tables = (config.vocab_size + config.type_vocab) * E + learned + relative
    projection = {"in": E * C + C, "both": 2 * E * C}[config.embed_maps] if E != C else 0
    has_embedding = not config.is_norm_first if norms.embedding is None else norms.embedding
    has_final = config.is_norm_first if norms.final is None else norms.final
    of_norms = has_embedding * _norm_params(config, E) + has_final * _norm_params(config, C)
    of_norms -= 0 if norms.first else _norm_params(config, C)
    return tables + projection + of_norms + config.attention.distance_buckets * config.n_head


def head_params(config: ModelConfig) -> int:
    """Parameters of the output beyond the token table, and of the pooler."""
    head = 0 if config.tied else config.vocab_size * config.embed_dim
    bias = config.vocab_size if config.head_bias else 0
    return head + bias + (config.d_model * (config.d_model + 1) if config.pooler else 0)


def score_weights(config: ModelConfig, absorbed: bool = False) -> int:
    """Multiply-accumulates of one query with one key and its value, over all heads.

    Absorbed, latent attention multiplies with what is cached: the up-projections have gone into
    the query and the output.
    """
    latent, H = config.attention.latent, config.n_head
    if latent is None:
        return 2 * H * config.head_dim
    if absorbed:
        return H * (2 * latent.kv_rank + latent.rope_dim)
    return H * (latent.nope_dim + latent.rope_dim + latent.v_dim)


def ffn_weights(config: ModelConfig) -> int:
    """Weights of all layers' feed-forwards that a token is multiplied with."""
    n_maps, experts = 3 if config.feed_forward.gated else 2, config.experts
    dense = (config.n_layer - config.n_expert_layers) * n_maps * config.d_model * config.d_ff
    if experts is None:
        return dense
    hidden = n_maps * (experts.n_active * experts.d_ff + experts.d_shared)
    width = hidden + experts.n_expert + experts.shared_gate
    return dense + config.n_expert_layers * config.d_model * width


def activation_values(config: ModelConfig) -> int:
    """Values a token that all layers' maps and activations keep for the backward pass.

    Queries, keys, values, the output's input, and the inputs of norms on them and of the maps
    between narrow vectors; each hidden unit's value before and after the activation, a gate's and
    its product too. The copies for experts are `expert_copies`.
    """
    q, kv = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    latent, experts = config.attention.latent, config.experts
    kept = 2 * q + 2 * kv + (0 if config.attention.qk_norm == "none" else q + kv)
    if latent is not None:
        wide = config.n_head * (latent.nope_dim + latent.rope_dim + latent.v_dim)
        kept = 2 * wide + 2 * (latent.q_rank or 0) + 2 * latent.kv_rank + latent.rope_dim
    per_unit = 4 if config.feed_forward.gated else 2
    n_dense = config.n_layer - config.n_expert_layers
    hidden = n_dense * per_unit * config.d_ff
    if experts is not None:
        units = experts.n_active * experts.d_ff + experts.d_shared
        hidden += config.n_expert_layers * per_unit * units
    return config.n_layer * kept + hidden


def expert_copies(config: ModelConfig) -> int:
    """Values a token that all layers keep for experts beside their hidden units; 0 without experts.

    For each active one a copy of its input, and its output, from which the router's weight has its
    gradient; the router's probabilities.
    """
    experts = config.experts
    if experts is None:
        return 0
    return config.n_expert_layers * (2 * experts.n_active * config.d_model + experts.n_expert)


check_module(__name__)
