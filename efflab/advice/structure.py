"""Gains of lighter structures (sharing, windows, blocks, Linformer, fewer heads) by formulas."""

from dataclasses import replace

from efflab import cost, layers
from efflab.advice.case import SERVING, Case
from efflab.advice.recorded import albert_row, board_loss, gqa_loss
from efflab.advice.serving import ELSEWHERE, SEEN, Served, gains
from efflab.advice.technique import Gain, Loss, Technique
from efflab.config import ModelConfig

WINDOW, BLOCKS, RANK, WIDTH = 64, 8 * 64, 256, 128
"""Tokens of a window before the query; keys of a BigBird query; Linformer's k; ALBERT's d_embed."""
SAME_FLOPS = "the same FLOPs: every layer still runs"
SAME_BYTES = "the same bytes: every layer reads the shared weights again"
EXPERTS = "every layer has experts of its own, which nobody has shared between layers"
SHORT = "texts this short have little to save in their scores"
NARROW = "its own windows leave little to save in its scores"
SHARED = "the model is shared already"
NONE_TO_SHARE = "its layers after the first hold next to no weights"
NO_WEIGHTS = "no weights are removed"
FUSED = "a fused kernel keeps no scores that it could save"
LOOKS_AHEAD = "its global blocks look ahead, which a causal model may not"
MIXES = "a summary mixes in later tokens, which a causal model may not see"
NO_DISTANCE = "scores here depend on distances between tokens, which a summary does not have"


def techniques(case: Case) -> list[Technique]:
    """The techniques of chapter 1."""
    found = [sharing(case), albert(case), window(case), bigbird(case), linformer(case)]
    return found + ([gqa(case), mqa(case)] if case.budget in SERVING else [])


# --- Parameters ------------------------------------------------------------------------------


def sharing(case: Case) -> Technique:
    """Every layer uses the same weights (Lan et al. 2020)."""
    return _sharing(case, "ALBERT: one layer's weights for all", case.config, None)


def albert(case: Case) -> Technique:
    """The same with ALBERT's narrow embedding table."""
    config, name = case.config, "ALBERT: shared weights, embedding of width 128"
    narrow = min(WIDTH, config.embed_dim)
    return _sharing(case, name, replace(config, d_embed=narrow), _published_loss(case.config))


def _sharing(case: Case, name: str, config: ModelConfig, loss: Loss | None) -> Technique:
    light = replace(config, share="all")
    if config.experts is not None:
        budgets = dict.fromkeys(("checkpoint", "memory", "latency", "training days"), EXPERTS)
        return Technique(name, "01", budgets | gains(case, EXPERTS), loss, structural=True)
    less = case.n_params / cost.num_params(light)
    if less <= 1.001:
        why = SHARED if config.share == "all" else NONE_TO_SHARE
        budgets = dict.fromkeys(("checkpoint", "memory"), why)
    else:
        memory = case.training_bytes() / case.training_bytes(config=light)
        budgets = {
            "checkpoint": Gain.computed(less, "efflab.cost.num_params"),
            "memory": Gain.computed(memory, "efflab.cost.activation_bytes"),
        }
    flops = case.flops_of(light)  # narrow logits are cheaper, layers are not
    budgets |= _speed(case, flops, SAME_FLOPS) | gains(case, Served(light, why=SAME_BYTES))
    return Technique(name, "01", budgets, loss, structural=True)


def _published_loss(config: ModelConfig) -> Loss | None:
    """Average score lost against BERT of the same shape; None unless the paper has both."""
    sizes = config.n_layer, config.d_model
    plain, light = albert_row(*sizes, "not-shared"), albert_row(*sizes, "all-shared")
    if plain is None or light is None or config.causal:
        return None
    lost = 100 * (1 - light["average_score"] / plain["average_score"])
    metric, where = "average score (ALBERT's five tasks)", "data/published/albert.csv"
    return Loss(lost, metric, "published", where, model="BERT of this shape")


# --- FLOPs -----------------------------------------------------------------------------------


def with_scores(case: Case, products: float) -> float:
    """FLOPs of a text whose scores take that many multiply-accumulates in each layer."""
    parts = cost.flops_by_part(case.config, case.tokens)
    return sum(parts.values()) - parts["scores"] + 2 * case.config.n_layer * products


def window(case: Case) -> Technique:
    """Each token sees 64 tokens before it and, if the model is not causal, 64 after it."""
    config, loss = case.config, board_loss("sliding window 64")
    keys = 1 + WINDOW * (1 if config.causal else 2)
    windows = tuple(min(own or keys, keys) for own in config.windows)
    light = replace(config, attention=replace(config.attention, windows=windows))
    name = "sliding window of 64 tokens"
    return _lighter(case, name, "03", case.flops_of(light), loss, Served(light))


def bigbird(case: Case) -> Technique:
    """8 blocks of 64 keys for each query (Zaheer et al. 2020)."""
    pairs = case.tokens * min(BLOCKS, case.tokens)
    flops = with_scores(case, pairs * layers.score_weights(case.config))
    why = LOOKS_AHEAD if case.config.causal else None
    return _summary(case, "BigBird: 8 blocks of 64 keys", "03", flops, why)


def linformer(case: Case) -> Technique:
    """Keys and values of the text projected to 256 summaries (Wang et al. 2020)."""
    config = case.config
    # E K and F V, then the query's products with both
    channels = 2 * config.n_kv_head * config.head_dim + layers.score_weights(config)
    flops = with_scores(case, case.tokens * min(RANK, case.tokens) * channels)
    why = None if config.positions in ("learned", "fixed") else NO_DISTANCE
    return _summary(case, "Linformer: 256 summaries", "04", flops, MIXES if config.causal else why)


def _summary(case: Case, name: str, notebook: str, flops: float, why: str | None) -> Technique:
    """A technique with fewer scores; `why`: the reason that it does not help this model, if any."""
    technique = _lighter(case, name, notebook, flops, None, why or NO_WEIGHTS)
    budgets = dict.fromkeys(("latency", "training days"), why) if why else {}
    return replace(technique, budgets=technique.budgets | budgets)


def _lighter(
    case: Case, name: str, notebook: str, flops: float, loss: Loss | None, served: Served | str
) -> Technique:
    has_windows = any(own is not None and own < case.tokens for own in case.config.windows)
    budgets = {"memory": FUSED, "checkpoint": NO_WEIGHTS}
    budgets |= _speed(case, flops, NARROW if has_windows else SHORT)
    return Technique(name, notebook, budgets | gains(case, served), loss, structural=True)


def _speed(case: Case, flops: float, why: str) -> dict[str, Gain | str]:
    """Gains in latency and training days with `flops` per text; `why` replaces too small ones."""
    gains: dict[str, Gain | str] = {"latency": why, "training days": why}
    latency, days = case.seconds(case.flops) / case.seconds(flops), case.flops / flops
    if latency > SEEN:
        gains["latency"] = Gain.computed(latency, "efflab.cost.roofline_seconds")
    if days > SEEN:
        gains["training days"] = Gain.computed(days, "efflab.cost.forward_flops")
    return gains


# --- Heads -----------------------------------------------------------------------------------


def gqa(case: Case) -> Technique:
    """Eight heads of keys and values, or the most below that divide the queries' (Ainslie et al.
    2023)."""
    return _fewer_heads(case, "GQA: 8 heads of keys and values, retrained", 8, "GQA-8-XXL")


def mqa(case: Case) -> Technique:
    """One head of keys and values for all queries (Shazeer 2019)."""
    return _fewer_heads(case, "MQA: one head of keys and values, retrained", 1, "MQA-XXL")


def _fewer_heads(case: Case, name: str, most: int, published: str) -> Technique:
    config, attention = case.config, case.config.attention
    n = max(n for n in range(1, most + 1) if config.n_head % n == 0)
    served: Served | str = Served(replace(config, attention=replace(attention, n_kv_head=n)))
    if config.n_kv_head <= n:
        served = "it has as few heads of keys and values already"
    if attention.latent is not None:
        served = "latent attention caches one vector for all heads already"
    budgets = ELSEWHERE | gains(case, served)
    return Technique(name, "00", budgets, gqa_loss(published), structural=True)
