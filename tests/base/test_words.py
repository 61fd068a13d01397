"""A sentence is an English text everywhere, and another language's where it is asked for."""

import json

from efflab.base.words import Words, translate

CHINESE = {"{a} of {n}": "{n} 的 {a}", "layers": "层", "{n:,} tokens": "{n:,} 个 token"}


def test_words_are_texts():
    text = Words("{n:,} tokens", n=4096)
    assert text == "4,096 tokens"
    assert json.loads(json.dumps([text])) == ["4,096 tokens"]


def test_what_stands_inside_is_translated_too():
    text = Words("{a} of {n}", a=Words("layers"), n=3)
    assert text == "layers of 3"
    assert translate(text, CHINESE) == "3 的 层"
    assert translate(Words("{a} of {n}", a="heads", n=3), CHINESE) == "3 的 heads"


def test_what_has_no_translation_stays():
    assert translate("no such text", CHINESE) == "no such text"
    assert translate(Words("{n} heads of {{}}", n=2), {}) == "2 heads of {}"
