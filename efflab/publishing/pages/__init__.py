"""The Jinja templates of our own pages, whose values are escaped, and of Markdown and code."""

from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).parent


@lru_cache(maxsize=1)
def _environment():
    """Jinja with escaping on for every page; a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([HERE, HERE.with_name("template")]),
        autoescape=lambda name: name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, /, **values) -> str:
    """The template `name` filled with these values."""
    return _environment().get_template(name).render(values)
