"""Two languages: the English text is the key, a `zh.toml` holds the Chinese.

Each is flat, `"English {n}" = "中文 {n}"`: one for lab itself, and the one that a notebook passes
(`lab.use_notebook`), which takes precedence.
"""

import numbers
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from efflab.base.formats import LANGUAGES
from efflab.base.significant import significant
from efflab.base.toml_files import read_toml
from efflab.base.words import Words
from efflab.errors import require_one_of

KINDS = ("measured", "computed", "simulated", "recorded", "published")
"""Where a number comes from: each number shown is labelled with one of these."""

OWN_TEXTS = Path(__file__).with_name("zh.toml")
missing: set[str] = set()
"""English texts that were needed in Chinese and have no translation; a test refuses any."""

_language = "en"
_notebook_texts: dict[str, str] = {}


def use_language(language: str) -> None:
    """Show everything from here on in "en" or "zh"; anything else is a `ValueError`."""
    require_one_of("language", language, LANGUAGES)
    global _language
    _language = language


def language() -> str:
    """The language in use, "en" or "zh"."""
    return _language


def use_texts(texts: Path | Mapping[str, str]) -> None:
    """Set the Chinese of the notebook's own texts, replacing those of the notebook before."""
    global _notebook_texts
    _notebook_texts = dict(texts) if isinstance(texts, Mapping) else read_toml(texts)


@contextmanager
def speaking(language: str, texts: Mapping[str, str] | None = None) -> Iterator[None]:
    """Inside the block `tr` uses this language, and these texts if any; then the former again."""
    before, texts_before = _language, _notebook_texts
    try:
        use_language(language)
        use_texts(texts_before if texts is None else texts)
        yield
    finally:
        use_language(before)
        use_texts(texts_before)


@lru_cache(maxsize=1)
def _own_texts() -> dict[str, str]:
    return read_toml(OWN_TEXTS)


def chinese(text: str) -> str | None:
    """The Chinese of an English text: the notebook's own, else lab's, else None."""
    return _notebook_texts.get(text, _own_texts().get(text))


def tr(text: str, /, **values) -> str:
    """`text` in the current language, with `{name}` filled from `values`.

    Without a translation it stays English and is added to `missing`. A text without words ("x",
    "%", "2^n") or already in Chinese needs none. `Words` bring their template and values.

    >>> tr("{n} tokens", n=5)
    '5 tokens'
    """
    if isinstance(text, Words):
        text, values = text.template, text.values
    if _language == "zh":
        translation = chinese(text)
        if translation is None and needs_translation(text):
            missing.add(text)
        text = text if translation is None else translation
    return text.format(**values) if values else text


def tr_name(name: str) -> str:
    """`tr` for a text that may be an identifier ("gpt2", "1f1b"), which is not translated.

    A text with a space or a plain word ("tokens") is translated as by `tr`.
    """
    is_text = " " in name or re.fullmatch("[A-Z]?[a-z]+", name)
    return tr(name) if is_text or chinese(name) is not None else name


def tr_known(name) -> str:
    """`tr` of what has Chinese; anything else is a name or a number, which stands as it is."""
    return str(name) if chinese(str(name)) is None else tr(str(name))


def needs_translation(text: str) -> bool:
    """Whether `text` has a word of two or more Latin letters and nothing Chinese."""
    return bool(re.search(r"[A-Za-z]{2}", re.sub(r"{.*?}", "", text))) and not has_chinese(text)


def has_chinese(text: str) -> bool:
    """Whether `text` has a Chinese character or full-width punctuation."""
    return bool(re.search(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]", text))


def number(value, digits: int = 3) -> str:
    """A value for readers: thousands separators, `digits` significant digits.

    >>> number(108_310_272), number(23.9617), number(999.6), number(1.5e-7), number(-0.0)
    ('108,310,272', '24', '1,000', '1.5×10⁻⁷', '0')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return tr_name("yes" if value else "no")
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    return significant(value, digits) if isinstance(value, numbers.Number) else str(value)


def unit_name(unit: str) -> str:
    """A unit alone, in the current language: in Chinese without the counter 个."""
    return tr_name(unit).removeprefix("个 ")


def with_unit(value, unit: str = "", digits: int = 3) -> str:
    """`number` and its unit: "24x", "5%" and "±5%" without a space, words with one.

    >>> with_unit(24.0, "x"), with_unit(5, "tokens"), with_unit(8.4, "±%")
    ('24x', '5 tokens', '±8.4%')
    """
    if unit.startswith("±"):
        return "±" + with_unit(value, unit.removeprefix("±"), digits)
    unit = tr_name(unit)
    gap = "" if unit in ("", "x", "%") else " "
    return f"{number(value, digits)}{gap}{unit}"
