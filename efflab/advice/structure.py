"""Gains of lighter structures (sharing, windows, blocks, Linformer) by formulas."""

from dataclasses import replace

from efflab import cost
from efflab.advice.case import Case
from efflab.advice.recorded import albert_row, board_loss
from efflab.advice.technique import Gain, Loss, Technique
from efflab.config import ModelConfig
from efflab.structure.pairs import computed_pairs

WINDOW, BLOCKS, RANK, WIDTH = 64, 8 * 64, 256, 128
"""Tokens of a window before the query; keys of a BigBird query; Linformer's k; ALBERT's d_embed."""
SAME_FLOPS = "as many FLOPs: every layer still runs"
SHORT = "texts this short have little to save in their scores"
NO_WEIGHTS = "no weight leaves"
FUSED = "a fused kernel keeps no scores that it could save"
SEEN = 1.005
"""Smallest gain that counts."""


def techniques(case: Case) -> list[Technique]:
    """The techniques of chapter 1."""
    return [sharing(case), albert(case), window(case), bigbird(case), linformer(case)]


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
    less = case.n_params / cost.num_params(light)
    if less <= 1.001:
        budgets: dict[str, Gain | str] = dict.fromkeys(
            ("checkpoint", "memory"), "the model is shared already"
        )
    else:
        memory = case.training_bytes() / case.training_bytes(config=light)
        budgets = {
            "checkpoint": Gain.computed(less, "efflab.cost.num_params"),
            "memory": Gain.computed(memory, "efflab.cost.activation_bytes"),
        }
    flops = cost.forward_flops(light, case.tokens)  # narrow logits are cheaper, layers are not
    return Technique(name, "01", budgets | _speed(case, flops, SAME_FLOPS), loss, structural=True)


def _published_loss(config: ModelConfig) -> Loss | None:
    """Average score lost against BERT of the same shape; None unless the paper has both."""
    sizes = config.n_layer, config.d_model
    plain, light = albert_row(*sizes, "not-shared"), albert_row(*sizes, "all-shared")
    if plain is None or light is None or config.causal:
        return None
    lost = 100 * (1 - light["average_score"] / plain["average_score"])
    where = "data/published/albert.csv"
    return Loss(lost, "average score (ALBERT's five tasks)", "published", where)


# --- FLOPs -----------------------------------------------------------------------------------


def with_scores(case: Case, scores: float) -> float:
    """FLOPs of a text whose scores cost `scores` in all layers."""
    return case.flops - cost.flops_by_part(case.config, case.tokens)["scores"] + scores


def window(case: Case) -> Technique:
    """Each token sees 64 tokens before it and, if the model is not causal, 64 after it."""
    pairs = computed_pairs(case.tokens, WINDOW, causal=case.config.causal)
    scores = 4 * case.config.n_layer * case.config.d_model * pairs
    name, loss = "sliding window of 64 tokens", board_loss("sliding window 64")
    return _lighter(case, name, "03", scores, loss)


def bigbird(case: Case) -> Technique:
    """8 blocks of 64 keys for each query (Zaheer et al. 2020)."""
    keys = min(BLOCKS, case.tokens)
    scores = 4 * case.config.n_layer * case.config.d_model * case.tokens * keys
    gains = _lighter(case, "BigBird: 8 blocks of 64 keys", "03", scores, None)
    if case.config.causal:
        why = "its global blocks look ahead, which a causal model may not"
        return replace(gains, budgets=gains.budgets | {"latency": why, "training days": why})
    return gains


def linformer(case: Case) -> Technique:
    """Keys and values of the text projected to 256 summaries (Wang et al. 2020)."""
    config, T = case.config, case.tokens
    rank = min(RANK, T)
    scores = config.n_layer * 4 * T * rank * config.d_model * 2  # E K, F V; then both products
    gains = _lighter(case, "Linformer: 256 summaries", "04", scores, None)
    if config.causal:
        why = "a summary mixes in later tokens, which a causal model may not see"
        return replace(gains, budgets=gains.budgets | {"latency": why, "training days": why})
    return gains


def _lighter(case: Case, name: str, notebook: str, scores: float, loss: Loss | None) -> Technique:
    flops = with_scores(case, scores)
    budgets = {"memory": FUSED, "checkpoint": NO_WEIGHTS} | _speed(case, flops, SHORT)
    return Technique(name, notebook, budgets, loss, structural=True)


def _speed(case: Case, flops: float, why: str) -> dict[str, Gain | str]:
    """Gains in latency and training days with `flops` per text; `why` replaces too small ones."""
    gains: dict[str, Gain | str] = {"latency": why, "training days": why}
    latency, days = case.seconds(case.flops) / case.seconds(flops), case.flops / flops
    if latency > SEEN:
        gains["latency"] = Gain.computed(latency, "efflab.cost.roofline_seconds")
    if days > SEEN:
        gains["training days"] = Gain.computed(days, "efflab.cost.forward_flops")
    return gains
