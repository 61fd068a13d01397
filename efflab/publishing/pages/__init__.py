"""The Jinja templates of pages, whose values are escaped, and of Markdown and code."""

from pathlib import Path

HERE = Path(__file__).parent


def environment(*folders: Path):
    """Jinja over these folders, with escaping on for every page; a missing value is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=lambda name: name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, /, **values) -> str:
    """Our own template `name` filled with these values."""
    return environment(HERE, HERE.with_name("template")).get_template(name).render(values)
