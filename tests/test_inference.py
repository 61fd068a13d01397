"""Costs of today's layers beside `transformers`: FLOPs counted, caches measured, tensors saved.

Eager attention and eager experts: with the defaults the counter sees neither scores nor experts.
"""

from dataclasses import replace

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

from efflab import cost, inference, layers
from efflab.config import Attention, Experts, FeedForward, Latent, ModelConfig, Norms, from_hf

EAGER = dict(attn_implementation="eager", experts_implementation="eager")
WINDOW, TOKENS, BATCH = 5, 12, 2
SIZES = 3, 6, 36, 50, 101, 64
PLAIN = ModelConfig(*SIZES, causal=True, positions="rotary", tied=False)
LLAMA = replace(
    PLAIN,
    activation="silu",
    feed_forward=FeedForward(gated=True, bias=False),
    norms=Norms("rms", bias=False),
)
QWEN3 = Attention(2, 10, bias="none", qk_norm="head")


def windows(*sizes):
    """The field of `transformers` for layers with these windows."""
    kinds = ["sliding_attention" if size else "full_attention" for size in sizes]
    return dict(sliding_window=WINDOW, layer_types=kinds)


# model class -> what its config sets beside COMMON (None: not at all), and our config
COMMON = dict(
    vocab_size=101,
    max_position_embeddings=64,
    hidden_size=36,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=50,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
FAMILIES = {
    "Llama": ({}, replace(LLAMA, attention=Attention(2, bias="none"))),
    "Qwen3": (
        dict(head_dim=10, tie_word_embeddings=True),
        replace(LLAMA, attention=QWEN3, tied=True),
    ),
    "Olmo2": ({}, replace(LLAMA, attention=Attention(2, bias="none", qk_norm="width"))),
    "Gemma3Text": (
        dict(head_dim=10, tie_word_embeddings=True, **windows(WINDOW, WINDOW, None)),
        replace(
            LLAMA,
            attention=replace(QWEN3, windows=(WINDOW, WINDOW, None)),
            norms=Norms("rms", bias=False, per_layer=4),
            tied=True,
        ),
    ),
    "Mixtral": (
        dict(num_local_experts=5, num_experts_per_tok=2),
        replace(LLAMA, attention=Attention(2, bias="none"), experts=Experts(5, 2, 50)),
    ),
    "Qwen3Moe": (
        dict(
            head_dim=10,
            num_experts=7,
            num_experts_per_tok=3,
            moe_intermediate_size=14,
            mlp_only_layers=[1],
            norm_topk_prob=True,
        ),
        replace(LLAMA, attention=QWEN3, experts=Experts(7, 3, 14, dense_layers=(1,))),
    ),
    "GptOss": (
        dict(
            head_dim=10,
            num_local_experts=5,
            num_experts_per_tok=2,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0),
            **windows(WINDOW, None, WINDOW),
        ),
        replace(
            LLAMA,
            attention=Attention(2, 10, windows=(WINDOW, None), sinks=True),
            feed_forward=FeedForward(gated=True),
            experts=Experts(5, 2, 50, router_bias=True),
        ),
    ),
    "DeepseekV3": (
        dict(
            num_key_value_heads=6,
            q_lora_rank=11,
            kv_lora_rank=13,
            qk_nope_head_dim=9,
            qk_rope_head_dim=4,
            v_head_dim=7,
            n_routed_experts=8,
            num_experts_per_tok=3,
            n_group=2,
            topk_group=2,
            moe_intermediate_size=14,
            n_shared_experts=2,
            first_k_dense_replace=1,
        ),
        replace(
            LLAMA,
            attention=Attention(bias="none", latent=Latent(13, 9, 4, 7, q_rank=11)),
            experts=Experts(8, 3, 14, d_shared=28, dense_layers=(0,)),
        ),
    ),
    "Falcon": (
        dict(
            num_key_value_heads=None,
            intermediate_size=None,
            multi_query=True,
            parallel_attn=True,
            new_decoder_architecture=False,
            bias=False,
            ffn_hidden_size=50,
            tie_word_embeddings=True,
        ),
        replace(
            PLAIN,
            attention=Attention(1, bias="none"),
            feed_forward=FeedForward(bias=False),
            norms=Norms(per_layer=1),
            tied=True,
            parallel=True,
        ),
    ),
    "GPTNeoX": (dict(num_key_value_heads=None, rotary_pct=0.67), replace(PLAIN, parallel=True)),
    "Phi": (
        dict(num_key_value_heads=6, partial_rotary_factor=0.67),
        replace(PLAIN, norms=Norms(per_layer=1), parallel=True, head_bias=True),
    ),
}
WITH_WINDOWS = ("Gemma3Text", "GptOss")


def make(family, **options):
    """The family's random model with EAGER, and our config as its dict is read."""
    torch.manual_seed(0)
    build = transformers.AutoModelForCausalLM.from_config
    config = from_hf(theirs(family).to_dict())
    return build(theirs(family), **EAGER | options).eval(), config


def theirs(family):
    """The family's config of `transformers`."""
    fields = {k: v for k, v in (COMMON | FAMILIES[family][0]).items() if v is not None}
    return getattr(transformers, f"{family}Config")(**fields)


def ids(n_tokens=TOKENS):
    return torch.randint(3, 101, (BATCH, n_tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def count(call):
    """(FLOPs of its matrix products, what it returns)."""
    with FlopCounterMode(display=False) as counter:
        outputs = call()
    return counter.get_total_flops(), outputs


# --- FLOPs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_and_flops_are_those_of_transformers(family):
    model, config = make(family)
    assert sum(p.numel() for p in model.parameters()) == cost.num_params(config)
    flops, outputs = count(lambda: model(ids(), use_cache=True))
    assert flops == cost.forward_flops(config, TOKENS, BATCH)
    cache = outputs.past_key_values
    flops, _ = count(lambda: model(ids(1), past_key_values=cache, use_cache=True))
    assert flops == inference.decode_flops(config, TOKENS, BATCH, absorbed=False)
    least = inference.decode_flops(config, TOKENS, BATCH)
    # all cached narrow vectors are expanded again
    assert (least < flops) == (family == "DeepseekV3")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_costs_the_same_read_and_written_by_hand(family):
    read, ours = from_hf(theirs(family).to_dict()), FAMILIES[family][1]
    for count_costs in (
        cost.num_params,
        cost.active_params,
        lambda config: cost.flops_by_part(config, TOKENS),
        lambda config: cost.kv_cache_bytes(config, TOKENS),
        lambda config: cost.activation_bytes(config, TOKENS, 1),
        lambda config: inference.decode_bytes(config, TOKENS),
    ):
        assert count_costs(read) == count_costs(ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_counts_the_pairs_that_the_masks_of_transformers_let_through(family):
    model, config = make(family)
    flops, _ = count(lambda: model(ids(), logits_to_keep=1))
    options = dict(inputs_embeds=torch.zeros(1, TOKENS, 36), attention_mask=None)
    seen = {}
    for window in set(config.windows):
        create = create_sliding_window_causal_mask if window else create_causal_mask
        seen[window] = int((create(model.config, past_key_values=None, **options) == 0).sum())
    masked = sum(TOKENS**2 - seen[window] for window in config.windows)
    flops -= 2 * BATCH * masked * layers.score_weights(config)
    assert flops == inference.prefill_flops(config, TOKENS, BATCH)


def absorbed_forward(self, hidden_states, position_embeddings, past_key_values=None, **_):
    """DeepSeek's attention of one new token (B,1,C) on the cached narrow vectors themselves."""
    nope, rope, rank = self.qk_nope_head_dim, self.qk_rope_head_dim, self.kv_lora_rank
    q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_states)))
    q = q.unflatten(-1, (self.num_heads, nope + rope)).transpose(1, 2)
    narrow, key = self.kv_a_proj_with_mqa(hidden_states).split([rank, rope], dim=-1)
    q_rotary, key = deepseek.apply_rotary_pos_emb_interleave(
        q[..., nope:], key[:, None], *position_embeddings
    )
    narrow = self.kv_a_layernorm(narrow)[:, None]
    narrow, key = past_key_values.update(narrow, key, self.layer_idx)
    to_keys, to_values = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1)).split(
        [nope, self.v_head_dim], dim=1
    )
    # (B,H,1,rank) beside (B,1,S,rank): the key is the narrow vector
    q_narrow = torch.einsum("bhtn,hnr->bhtr", q[..., :nope], to_keys)
    scores = torch.einsum("bhtr,bsr->bhts", q_narrow, narrow[:, 0])
    scores = scores + torch.einsum("bhtr,bsr->bhts", q_rotary, key[:, 0])
    weights = (scores * self.scaling).softmax(dim=-1)
    out = torch.einsum("bhts,bsr->bhtr", weights, narrow[:, 0])
    out = torch.einsum("bhtr,hvr->bthv", out, to_values).flatten(2)
    return self.o_proj(out), weights


def test_absorbed_latent_attention_is_the_expanded_one_with_other_flops(monkeypatch):
    model, config = make("DeepseekV3")
    with torch.no_grad():
        before, cache = (model(ids(), use_cache=True).past_key_values for _ in range(2))
        expected = model(ids(1), past_key_values=before).logits
    monkeypatch.setattr(deepseek.DeepseekV3Attention, "forward", absorbed_forward)
    flops, outputs = count(lambda: model(ids(1), past_key_values=cache))
    torch.testing.assert_close(outputs.logits, expected)
    assert flops == inference.decode_flops(config, TOKENS, BATCH, absorbed=True)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 2, 3, 4, 5, 11, 12, 13, 40])
def test_a_prompt_counts_the_pairs_inside_the_text(causal, window):
    config = replace(PLAIN, causal=causal, attention=Attention(windows=(window,)))
    wide = window or 2 * TOKENS
    left, right = (wide - 1, 0) if causal else (wide // 2, (wide - 1) // 2)
    pairs = sum(-right <= i - j <= left for i in range(TOKENS) for j in range(TOKENS))
    linear = cost.flops_by_part(config, TOKENS)
    logits = linear["logits"] // TOKENS if causal else 0
    expected = linear["projections"] + linear["ffn"] + logits
    expected += 2 * config.n_layer * pairs * layers.score_weights(config)
    assert inference.prefill_flops(config, TOKENS) == expected


# --- The cache -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_is_that_of_transformers_but_for_one_token_of_a_window(family):
    """Before the next token its dynamic cache keeps window - 1, which that token makes full."""
    model, config = make(family, dtype=torch.bfloat16)
    with torch.no_grad():
        cache = model(ids(), use_cache=True).past_key_values
        for _ in range(3):
            model(ids(1), past_key_values=cache, use_cache=True)
    n_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    short = tuple(window and window - 1 for window in config.attention.windows)
    shorter = replace(config, attention=replace(config.attention, windows=short))
    assert n_bytes == cost.kv_cache_bytes(shorter, TOKENS + 3, BATCH)
    a_token = 2 * BATCH * 2 * config.n_kv_head * config.head_dim
    n_windows = sum(window is not None for window in config.windows)
    assert cost.kv_cache_bytes(config, TOKENS + 3, BATCH) - n_bytes == n_windows * a_token
    assert (n_windows > 0) == (family in WITH_WINDOWS)


def test_the_latent_cache_is_the_rank_and_the_rotary_key_not_heads():
    _, config = make("DeepseekV3")
    assert cost.kv_cache_bytes(config, 1) == 3 * (13 + 4) * 2


# --- What training stores --------------------------------------------------------------------


def saved_bytes(model):
    """(Bytes that autograd saves of the first layer, cosines and sines left out, norms' inputs)."""
    base, norms, sizes = model.train().base_model, [], {}
    x = torch.randn(BATCH, TOKENS, 36, requires_grad=True)
    places = torch.arange(TOKENS)[None]
    tables = base.rotary_emb(x, places)
    left_out = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *tables)}
    saved = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            sizes[storage.data_ptr()] = storage.nbytes()
            # or another tensor could have its address
            saved.append(tensor)
        return tensor

    for module in base.layers[0].modules():
        if "Norm" in type(module).__name__:
            module.register_forward_pre_hook(lambda _, inputs: norms.append(inputs[0]))
    eager = model.config._attn_implementation == "eager"
    mask = torch.full((TOKENS, TOKENS), float("-inf")).triu(1)[None, None] if eager else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        base.layers[0](x, attention_mask=mask, position_embeddings=tables, position_ids=places)
    return sum(sizes.values()), norms


@pytest.mark.parametrize(
    ("family", "attention"),
    [
        ("Llama", "sdpa"),
        ("Llama", "eager"),
        ("Qwen3", "sdpa"),
        ("Olmo2", "sdpa"),
        ("Mixtral", "sdpa"),
        ("Qwen3Moe", "sdpa"),
        ("DeepseekV3", "eager"),
        ("GPTNeoX", "eager"),
    ],
)
def test_activations_are_what_autograd_saves_but_for_what_fused_kernels_do_without(
    family, attention
):
    """Not in the closed form, and nothing else: a norm's statistics, a second value a channel where
    RMSNorm is in elementary operations, what eager attention and eager experts copy."""
    model, config = make(family, attn_implementation=attention)
    options = dict(value_bytes=4, dropout=False, fused_attention=attention == "sdpa")
    first = replace(config, n_layer=1)
    counted = cost.activation_bytes(first, TOKENS, BATCH, **options)
    saved, norms = saved_bytes(model)
    rows = sum(x.numel() // x.shape[-1] for x in norms)
    # LayerNorm: mean and deviation of a row; RMSNorm: one, and its normalized values
    values = 2 * rows if family == "GPTNeoX" else rows + sum(x.numel() for x in norms)
    tokens = TOKENS * BATCH
    if attention == "eager":
        # keys and values, repeated for the query heads
        values += tokens * 2 * (config.n_head - config.n_kv_head) * config.head_dim
    left_out = 4 * values
    if first.n_expert_layers:
        # an active expert: its weighted output, two weights of 4 bytes, three indices of 8
        n_active = config.experts.n_active
        left_out += tokens * (n_active * (4 * 36 + 2 * 4 + 3 * 8) + 4)
    assert saved - left_out == counted
