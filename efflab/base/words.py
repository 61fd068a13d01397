"""Sentences with numbers in them that another language can fill too. No torch here."""

from collections.abc import Mapping


class Words(str):
    """An English text that remembers its `template` and `values`.

    >>> Words("{n} layers", n=5), Words("{n} layers", n=5).template
    ('5 layers', '{n} layers')
    """

    template: str
    values: dict

    def __new__(cls, template: str, /, **values):
        words = super().__new__(cls, template.format(**values))
        words.template, words.values = template, values
        return words


def translate(text: str, texts: Mapping[str, str]) -> str:
    """`text` by `texts`, {English: the other language}; what these lack stays English.

    >>> translate(Words("{n} layers", n=5), {"{n} layers": "{n} 层"})
    '5 层'
    """
    if not isinstance(text, Words):
        return texts.get(text, text)
    values = {k: translate(v, texts) if isinstance(v, str) else v for k, v in text.values.items()}
    return texts.get(text.template, text.template).format(**values)
