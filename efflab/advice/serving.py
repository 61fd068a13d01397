"""What serving costs at least, by formula: seconds of one more token, and tokens that fit.

One text. A token reads the weights that it uses, and the cache; what devices that share them send
each other is left out (Pope et al. 2022, section 3, has it). The products are in 16 bits.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from efflab import cost, inference
from efflab.advice.case import BUDGETS, SERVING, Case
from efflab.advice.technique import Gain
from efflab.base.significant import significant
from efflab.base.words import Words
from efflab.config import ModelConfig

LONGEST = 10 * 2**20
"""Tokens that count as any number: no model takes a longer text (Llama 4 Scout's `max_len`)."""
SEEN = 1.005
"""Smallest gain that counts."""
DECODE, CONTEXT = "efflab.inference.decode_bytes", "efflab.cost.kv_cache_bytes"
ENCODER = "an encoder reads a text whole: it writes no tokens and keeps no cache"
NO_PEAKS = "neither bandwidth nor memory of this CPU is known: give them as a device of your own"
NO_ROOM = "{gb} GB of weights per device do not fit into {room} GB"
HALF_BYTES = partial(cost.weight_bytes, format="bf16")


@dataclass(frozen=True)
class Served:
    """A model as it is served: bytes of its weights and of a cached value, devices that share it.

    `weights` gives the bytes of a shape's parameters. `why`: what to say where nothing is gained.
    """

    config: ModelConfig
    weights: Callable[[ModelConfig], float] = HALF_BYTES
    value_bytes: float = 2
    n_devices: int = 1
    why: str = "it changes next to nothing that is read or kept"

    def read_bytes(self, n_cached: int) -> float:
        """Bytes that a device reads for one more token: weights in use, and its cache."""
        config, experts = self.config, self.config.experts
        # Of an input table that is not the output's too a token reads one row.
        used = replace(config, share="none", tied=True)
        if experts is not None:
            used = replace(used, experts=replace(experts, n_expert=experts.n_active))
        router = cost.active_params(replace(config, share="none")) - cost.num_params(used)
        if not config.tied:
            router -= config.vocab_size * config.embed_dim
        weights = self.weights(used) + 2 * router
        return weights / self.n_devices + self.cache_bytes(n_cached)

    def cache_bytes(self, n_tokens: int) -> float:
        """Bytes of a device's cache: its heads' keys and values, or the latent vector whole."""
        heads = 1 if self.config.attention.latent else self.config.n_kv_head
        share = -(-heads // self.n_devices) / heads
        return share * cost.kv_cache_bytes(self.config, n_tokens, value_bytes=self.value_bytes)

    def seconds(self, case: Case) -> float:
        """Seconds of one more token after the case's: the roofline."""
        flops = inference.decode_flops(self.config, case.tokens)
        return case.seconds(flops / self.n_devices, self.read_bytes(case.tokens), "fp16")

    def longest(self, memory: float) -> int:
        """Tokens of one text whose cache fits beside the weights in a device's `memory` bytes."""
        room = memory - self.weights(self.config) / self.n_devices
        return max(0, bisect_right(range(LONGEST + 1), room, key=self.cache_bytes) - 1)


def baseline(case: Case) -> Served:
    """Weights and cache in 16 bits, on as many of the case's devices as can share them."""
    return Served(case.config, n_devices=1 if why_alone(case) else case.n_devices)


def why_alone(case: Case) -> str:
    """Why the case's devices cannot share one text's layers; "" if they can."""
    n, n_head = case.n_devices, case.config.n_head
    nodes = case.gpu.cluster.node_devices if case.gpu else 1
    if n == 1:
        return "there is one device"
    fits = n <= nodes and n_head % n == 0
    words = "{n} devices do not divide {n_head} heads in a node of {nodes}"
    return "" if fits else Words(words, n=n, n_head=n_head, nodes=nodes)


def gains(case: Case, served: Served | str) -> dict[str, Gain | str]:
    """Gains over the `baseline`, on its devices; a reason in words stays as it is."""
    if isinstance(served, str):
        return compare(case, served, served)
    plain = baseline(case)
    return compare(case, plain, replace(served, n_devices=plain.n_devices))


def compare(case: Case, before: Served | str, after: Served | str) -> dict[str, Gain | str]:
    """Gains of one over the other; in tokens where none fitted."""
    if not case.config.causal:
        return dict.fromkeys(SERVING, ENCODER)
    if isinstance(before, str) or isinstance(after, str):
        return dict.fromkeys(SERVING, after)
    if case.gpu is None:
        return dict.fromkeys(SERVING, NO_PEAKS)
    speed = before.seconds(case) / after.seconds(case)
    decode = Gain.computed(speed, DECODE) if speed > SEEN else after.why
    return {"decode": decode, "context": _room(before, after, case.gpu.memory_bytes or 0.0)}


def _room(before: Served, after: Served, memory: float) -> Gain | str:
    few, many = (served.longest(memory) for served in (before, after))
    if few == LONGEST:
        return "any text fits already"
    if many == 0:
        gb = significant(after.weights(after.config) / after.n_devices / 1e9)
        return Words(NO_ROOM, gb=gb, room=significant(memory / 1e9))
    if few == 0:
        return Gain(many, many, "computed", CONTEXT, unit=" tokens")
    source = f"{CONTEXT}: any text fits, {many:,} tokens counted" if many == LONGEST else CONTEXT
    return Gain.computed(many / few, source) if many / few > SEEN else after.why


ELSEWHERE = dict.fromkeys(BUDGETS[:-1], "it is weighed for decode and context alone")
"""Answers for the other budgets of a technique that `ranking` lists for serving alone."""
