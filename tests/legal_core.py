"""Legal arguments of the core's files and records: see `legal_calls`.

Whatever a call writes goes into a folder that ends with the process.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn

from efflab import conversion, families, pretrained, weights
from efflab.config import ModelConfig
from efflab.model import Transformer

TINY = ModelConfig(1, 1, 2, 2, 4, 8, type_vocab=2, pooler=True)
TENSORS = {"a": torch.ones(2)}
SIZES = dict(hidden_size=2, num_hidden_layers=1, num_attention_heads=1, intermediate_size=2)
SIZES |= dict(vocab_size=4, max_position_embeddings=8)


@cache
def _folder() -> TemporaryDirectory:
    return TemporaryDirectory()


def path(name: str = "new.txt") -> Path:
    return Path(_folder().name) / name


def tiny() -> Transformer:
    torch.manual_seed(0)
    return Transformer(TINY).eval()


@cache
def bert() -> nn.Module:
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**SIZES)).eval()


def llama() -> dict:
    return transformers.LlamaConfig(**SIZES).to_dict()


@cache
def llama_tensors() -> dict:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).state_dict()


@cache
def llama_folder() -> Path:
    folder = path("llama")
    folder.mkdir()
    weights.save_tensors(folder / "model.safetensors", llama_tensors(), {})
    (folder / "config.json").write_text(json.dumps(llama()))
    return folder


@cache
def albert() -> nn.Module:
    torch.manual_seed(0)
    return transformers.AlbertModel(transformers.AlbertConfig(**SIZES, embedding_size=1)).eval()


def saved_tensors() -> Path:
    weights.save_tensors(path("a.safetensors"), TENSORS, {"unit": "m"})
    return path("a.safetensors")


def saved_checkpoint() -> Path:
    pretrained.save_checkpoint(tiny(), path("model.safetensors"), {})
    return path("model.safetensors")


def saved_json() -> Path:
    path("a.json").write_text("{}")
    return path("a.json")


def tokenize(texts: list[str], **_: Any) -> dict[str, torch.Tensor]:
    ids = torch.ones(len(texts), 3, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": ids}


def sha256() -> str:
    return hashlib.sha256(saved_json().read_bytes()).hexdigest()


SOURCE = dict(model_type="gpt2", n_layer=2, n_head=2, n_embd=8, vocab_size=9, n_positions=16)
BY_TYPE: dict[Any, Callable[[], Any]] = {
    conversion.PreTrainedModel: bert,
    weights.Tensors: TENSORS.copy,
    type: lambda: int,
}
BY_NAME: dict[str, Callable[[], Any]] = {"limit": lambda: [1, 2]}
BY_FUNCTION: dict[str, dict[str, Callable[[], Any]]] = {
    "conversion.options_of": {"kind": lambda: "gpt2"},
    "conversion.from_weights": {
        "reading": lambda: families.read(llama()),
        "tensors": llama_tensors,
    },
    "pretrained.load_decoder": {"source": llama_folder},
    "data.sha256": {"path": saved_json},
    "config.from_hf": {"source": SOURCE.copy},
    "families.read": {"source": SOURCE.copy},
    "families.load": {"source": SOURCE.copy},
    "families.count_on_meta": {"source": SOURCE.copy},
    "families.family": {"kind": lambda: "gpt2"},
    "pretrained.embed": {"model": tiny, "tokenizer": lambda: tokenize, "texts": lambda: ["a"]},
    "pretrained.load_checkpoint": {"path": saved_checkpoint},
    "pretrained.mean_pool": {"attention_mask": lambda: torch.ones(1, 4)},
    "pretrained.read_card": {"path": saved_checkpoint},
    "pretrained.save_checkpoint": {"model": tiny, "path": path, "card": dict},
    "structure.sharing.from_albert": {"albert": albert},
    "weights.save_tensors": {"path": path, "metadata": lambda: {"unit": "m"}},
    "weights.read_tensors": {"path": saved_tensors},
    "weights.read_unhashed": {"path": saved_tensors},
    "weights.narrow": {"dtype": lambda: torch.float16},
    "weights.fill": {
        "model": lambda: nn.Linear(2, 1),
        "tensors": lambda: {"weight": torch.ones(1, 2), "bias": torch.ones(1)},
    },
}
BY_OWNER: dict[str, Callable[[], Any]] = {}
