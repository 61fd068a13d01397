"""What a split of a training run over devices costs: bytes per device, seconds per step.

Tensor x pipeline x data. Memory is `efflab.cost`'s arithmetic for the heaviest stage. A step's time
is that of a micro-batch on the slowest stage, times the pipeline's number of waves, plus what the
last backward pass does not hide of the gradients' all-reduce (Narayanan et al. 2021, section 3; Li
et al. 2020, section 3.2); three constants say which share of the peaks is reached.
`plan` beside it searches the splits, `plan_fit` fits the constants to published runs.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd
from typing import Annotated

from efflab import cost
from efflab.arguments import check_module, unchecked
from efflab.config import ModelConfig
from efflab.devices import Cluster, Device
from efflab.distributed import split_model
from efflab.distributed.ring_cost import ring_bytes
from efflab.errors import require
from efflab.rules import Positive, Size

RECOMPUTE = ("none", "selective", "full")
Recompute = Annotated[str, RECOMPUTE]
ZERO_STAGES = (0, 1, 3)
"""Stage 2, which would reduce gradients after every micro-batch, is not modelled."""
MOST_SEQUENCES = 2**20
"""Most sequences per step, far above any training; a planner tries all divisors."""
DTYPE, VALUE_BYTES, LOGIT_BYTES = "fp16", 2, 4
"""Weights, gradients and activations are in 16 bits; logits are kept in 32 for the loss."""
GATHER_LINKS = 1
"""Links by which a ring that gathers the weights of stage 3 leaves a node."""
# A search calls these tens of thousands of times, with few arguments that `Training` has checked.
_cache = lru_cache(maxsize=4096)
_ring_bytes = unchecked(ring_bytes)
_activation_bytes = _cache(unchecked(cost.activation_bytes))
_flops_by_part = _cache(unchecked(cost.flops_by_part))
_forward_flops = _cache(unchecked(cost.forward_flops))
_model_state_bytes = _cache(unchecked(cost.model_state_bytes))
_num_params = _cache(unchecked(cost.num_params))
_layer_params = _cache(unchecked(split_model.layer_params))
_stage_model = _cache(unchecked(split_model.stage_model))
_hidden_units = unchecked(split_model.hidden_units)
_divides_kv_heads = unchecked(split_model.divides_kv_heads)


@dataclass(frozen=True)
class Constants:
    """The three fitted constants; the defaults are fitted to all of `plan_fit.published_rows()`.

    `products`: share of the device's peak that matrix products reach. `crossings`: how often the
    operators other than matrix products move a forward pass's stored activations over the memory
    bus. `network`: share of the bandwidth between nodes that is reached.
    """

    products: Positive = 0.677
    crossings: Positive = 2.739
    network: Positive = 0.675


@dataclass(frozen=True)
class Split:
    """tp x pp x dp devices: each layer over tp, layers over pp stages, the batch over dp replicas.

    Each replica runs `n_microbatches` one after the other. `n_chunks` above 1 interleaves: a device
    has that many separate runs of layers. `zero_stage` shards model states over the replicas.
    """

    tp: Size
    pp: Size
    dp: Size
    n_microbatches: Size
    n_chunks: Size = field(default=1, kw_only=True)
    zero_stage: Annotated[int, ZERO_STAGES] = field(default=0, kw_only=True)
    recompute: Recompute = field(default="full", kw_only=True)

    @property
    def n_devices(self) -> int:
        """tp x pp x dp."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True)
class Plan(Split):
    """A split and what it costs: bytes on the heaviest device, seconds per step, utilization.

    `mfu` (0..1), model FLOPs utilization: a forward pass plus a backward pass of twice as many,
    without recomputation.
    """

    memory_bytes: float
    step_seconds: float
    mfu: float


def hardware_flops(
    config: ModelConfig, global_batch: Size, seq_len: Size, recompute: Recompute
) -> float:
    """FLOPs of a step with recomputation (Narayanan et al. 2021, equation 3, if "full").

    Logits are not recomputed.
    """
    parts = _flops_by_part(config, seq_len, global_batch)
    return 3 * sum(parts.values()) + _flops_again(parts, recompute)


def _flops_again(parts: dict[str, int], recompute: str) -> int:
    """FLOPs of a forward pass that are recomputed; `parts` as from `cost.flops_by_part`."""
    layers = parts["projections"] + parts["scores"] + parts["ffn"]
    return {"none": 0, "selective": parts["scores"], "full": layers}[recompute]


@dataclass(frozen=True)
class Training:
    """The training to split: a step is `global_batch` sequences of `seq_len` tokens, in 16 bits.

    A device's part of today's models is `split_model`'s: all experts are in memory.
    `cluster` None: the device's own. `hides_gradients`: whether stage 3's sums of gradients overlap
    with the backward pass, as gathers do; ZeRO-3 would then rank above what was measured.
    """

    config: ModelConfig
    device: Device
    global_batch: Size
    seq_len: Size
    cluster: Cluster | None = None
    constants: Constants = Constants()
    hides_gradients: bool = False

    def __post_init__(self):
        n, longest = self.global_batch, self.config.max_len
        allowed = "at most {most} sequences per step"
        require(n <= MOST_SEQUENCES, "global_batch", n, allowed, most=MOST_SEQUENCES)
        allowed = "at most max_len={longest}"
        require(self.seq_len <= longest, "seq_len", self.seq_len, allowed, longest=longest)
        known = self.device.memory_bytes is not None
        require(known, "device", self.device.name, "one whose memory is known")
        self.device.peak(DTYPE)

    @property
    def network(self) -> Cluster:
        """The cluster that it runs on."""
        return self.cluster or self.device.cluster

    def evaluate(self, split: Split) -> Plan:
        """The split's cost, even if it does not fit the device; sizes that do not divide raise."""
        memory_bytes, seconds = self.memory_bytes(split), self._step_seconds(split)
        flops = 3 * _forward_flops(self.config, self.seq_len, self.global_batch)
        mfu = flops / (seconds * split.n_devices * self.device.peak(DTYPE))
        costs = dict(memory_bytes=memory_bytes, step_seconds=seconds, mfu=mfu)
        return Plan(**(vars(split) | costs))

    def _require(self, split: Split) -> None:
        config, chunks = self.config, split.pp * split.n_chunks
        nodes, divisor = self.network.node_devices, "a divisor of {what}={size}"
        require(split.tp <= nodes, "tp", split.tp, "at most a node's {nodes} devices", nodes=nodes)
        for name, size in (("n_head", config.n_head), ("d_ff", _hidden_units(config))):
            require(size % split.tp == 0, "tp", split.tp, divisor, what=name, size=size)
        fits, heads = _divides_kv_heads(config, split.tp), config.n_kv_head
        require(fits, "tp", split.tp, "a divisor or a multiple of n_kv_head={n}", n=heads)
        fits, layers = config.n_layer % chunks == 0, dict(what="n_layer", size=config.n_layer)
        require(fits, "pp * n_chunks", chunks, divisor, **layers)
        fits = split.n_chunks == 1 or split.n_microbatches % split.pp == 0
        allowed = "a multiple of pp={pp} where chunks interleave"
        require(fits, "n_microbatches", split.n_microbatches, allowed, pp=split.pp)
        parts, batch = split.dp * split.n_microbatches, self.global_batch
        fits = batch % parts == 0
        require(fits, "dp * n_microbatches", parts, divisor, what="global_batch", size=batch)

    def _micro_batch(self, split: Split) -> int:
        return self.global_batch // (split.dp * split.n_microbatches)

    def _stage(self, split: Split) -> ModelConfig:
        """The heaviest stage: its layers and the whole embedding, which the first stage looks up
        and the last multiplies by."""
        return _stage_model(self.config, self.config.n_layer // split.pp, split.tp)

    def memory_bytes(self, split: Split) -> float:
        """Bytes on the heaviest device: model states, activations, logits, the current layer.

        The first stage of a pipeline has pp micro-batches in flight, an interleaved one
        1 + (pp - 1) / (pp n_chunks) times as many (Korthikanti et al. 2022, section 4.2.3). With
        recomputation, all activations of one layer are added; with stage 3, one layer's weights.
        """
        self._require(split)
        stage, layer = self._stage(split), _stage_model(self.config, 1, split.tp)
        states = _model_state_bytes(_num_params(stage) / split.tp, split.dp, split.zero_stage)
        more = 1 + (split.pp - 1) / (split.pp * split.n_chunks) if split.n_chunks > 1 else 1
        in_flight = min(split.pp * more, split.n_microbatches)
        activations = self._stored_bytes(stage, split, split.recompute) * in_flight
        current = self._stored_bytes(layer, split, "none") if split.recompute != "none" else 0
        logits = LOGIT_BYTES * self._micro_batch(split) * self.seq_len * stage.vocab_size / split.tp
        gathered = VALUE_BYTES * _layer_params(layer) / split.tp if split.zero_stage == 3 else 0
        return states + activations + current + logits + gathered

    def _stored_bytes(self, config: ModelConfig, split: Split, recompute: str) -> float:
        """Bytes per device of one micro-batch's activations stored for the backward pass."""
        sizes = self.seq_len, self._micro_batch(split)
        return _activation_bytes(config, *sizes, tensor_parallel=split.tp, recompute=recompute)

    def _step_seconds(self, split: Split) -> float:
        """(m + (p - 1) / v) micro-batches on the slowest stage, plus the gradients' exposed sum."""
        forward, backward = self._pass_seconds(split)
        waves = split.n_microbatches + (split.pp - 1) / split.n_chunks
        micro = forward + backward + self._pass_on_seconds(split)
        return waves * micro + self._exposed_seconds(split, backward)

    def _pass_seconds(self, split: Split) -> tuple[float, float]:
        """Seconds of a micro-batch on the slowest stage, forward and backward."""
        forward, recomputed = self._forward_seconds(split)
        gather, reduce = self._gather_seconds(split), self._reduce_seconds(split)
        hidden, exposed = (2 * gather, 0.0) if self.hides_gradients else (gather, gather)
        backward = max(2 * forward + recomputed, hidden) + exposed
        n_reduces = 4 if split.recompute == "full" else 2  # 2 of them of what is recomputed
        return max(forward, gather) + 2 * reduce, backward + n_reduces * reduce

    def _forward_seconds(self, split: Split) -> tuple[float, float]:
        """Seconds of a forward pass of the slowest stage, and of the part that is recomputed.

        Matrix products are timed by FLOPs, everything else by the bytes of stored activations.
        """
        stage, micro_batch = self._stage(split), self._micro_batch(split)
        parts = _flops_by_part(stage, self.seq_len, micro_batch)
        activations = self._stored_bytes(stage, split, "none")
        how = split.recompute
        kept = 0.0 if how == "full" else self._stored_bytes(stage, split, how)
        speed = split.tp * self.device.peak(DTYPE) * self.constants.products
        traffic = self.constants.crossings / self.device.memory_bandwidth
        forward = sum(parts.values()) / speed + activations * traffic
        return forward, _flops_again(parts, how) / speed + (activations - kept) * traffic

    def _reduce_seconds(self, split: Split) -> float:
        """Seconds of one all-reduce per layer of the stage over the tensor ranks, on NVLink."""
        values = self._micro_batch(split) * self.seq_len * self.config.d_model
        n_bytes = _ring_bytes(VALUE_BYTES * values, split.tp) * self.config.n_layer / split.pp
        return n_bytes / self.network.inside_bytes_per_second

    def _pass_on_seconds(self, split: Split) -> float:
        """Seconds to send a micro-batch's activations to the next stage, and its gradients back.

        Each tensor rank sends its share (the paper's section 4.1), each chunk once.
        """
        if split.pp == 1:
            return 0.0
        values = self._micro_batch(split) * self.seq_len * self.config.d_model / split.tp
        return 2 * split.n_chunks * VALUE_BYTES * values / self._pace(split.n_devices)

    def _exposed_seconds(self, split: Split, backward: float) -> float:
        """Seconds of the gradients' sum that the last micro-batch's backward pass does not hide.

        A layer's sum runs while the layers before it compute, so the last one's stays (notebook 12,
        section 5). With stage 1, half of the bytes are the new weights, after the optimizer.
        """
        if split.zero_stage == 3:
            return 0.0
        # each of a ring's members in a node has a link
        links = gcd(split.dp, self.network.node_devices // split.tp)
        seconds = self._sum_seconds(split, links)
        weights = seconds / 2 if split.zero_stage == 1 else 0.0
        last = (seconds - weights) * split.pp / self.config.n_layer
        return weights + max(seconds - weights - backward, last)

    def _gather_seconds(self, split: Split) -> float:
        """Stage 3: seconds to all-gather the stage's weights once: half an all-reduce, on one link,
        since on all links of a node ZeRO-3 would be far faster than published (`plan_fit`)."""
        return self._sum_seconds(split, GATHER_LINKS) / 2 if split.zero_stage == 3 else 0.0

    def _sum_seconds(self, split: Split, links: int) -> float:
        """Seconds of one all-reduce of the stage's gradients over the replicas."""
        n_bytes = VALUE_BYTES * _num_params(self._stage(split)) / split.tp
        return _ring_bytes(n_bytes, split.dp) / self._pace(split.tp * split.dp, links)

    def _pace(self, span: int, links: int = 1) -> float:
        """Bytes per second of a ring of `span` neighbours that leaves their nodes by `links`."""
        network = self.network
        if span <= network.node_devices:
            return network.inside_bytes_per_second
        outside = links * network.outside_bytes_per_second * self.constants.network
        return min(network.inside_bytes_per_second, outside)


check_module(__name__)
