"""The templates of the pages that we write ourselves, filled in by Jinja: a text stays a text."""

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def _environment():
    """Every value is escaped, whatever a template's name; one that is not given is an error."""
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
    """The page or piece of a page that the template `name` makes of these values."""
    return _environment().get_template(name).render(values)
