"""The Jinja templates of our own pages; all values are escaped."""

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _environment():
    """Jinja with escaping on for every template; a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, **values) -> str:
    """The template `name` filled with these values."""
    return _environment().get_template(name).render(values)
