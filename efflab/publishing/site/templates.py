"""The Jinja templates of the site's pages, in web/templates; every value is escaped."""

from functools import lru_cache

from efflab.base.formats import OTHER
from efflab.base.places import ROOT
from efflab.base.toml_files import read_toml
from efflab.lab.text import speaking, tr
from efflab.publishing import pages
from efflab.publishing.site.assets import address

WEB = ROOT / "web"
STATIC = WEB / "static"
NAMES = {"en": "English", "zh": "中文"}
"""The languages in their own words."""
CLASSES = {"holds": "holds", "does not hold": "fails", "undecided": "open"}


def outcome_class(outcome: str) -> str:
    """The CSS class that colours an outcome's mark."""
    return CLASSES.get(outcome, "partly")


@lru_cache(maxsize=1)
def environment():
    """Jinja over the site's templates, which translate, and address files of web/static."""
    made = pages.environment(WEB / "templates", STATIC)
    made.globals.update(tr=tr, static=static)
    return made


def static(name: str) -> str:
    """Address of a file of web/static, relative to the site's root."""
    return address(name, (STATIC / name).read_bytes())


def page_modules(page: str) -> dict[str, bytes]:
    """The files of web/`page`, {name: content}, and those of web/static that its modules import."""
    paths = [*(WEB / page).iterdir(), STATIC / "unpack.js", STATIC / "offline.js"]
    return {path.name: path.read_bytes() for path in paths}


def own_texts() -> dict[str, str]:
    """{English: Chinese} of the pages' own texts."""
    return read_toml(WEB / "zh.toml")


def other(language: str, name: str) -> dict[str, str]:
    """Address of the page of this name in the other language, and that language's name."""
    folder = "zh/" if language == "en" else "../"
    return dict(address=f"{folder}{name}.html", name=NAMES[OTHER[language]])


def render(name: str, language: str, **values) -> str:
    """The template `name` in a language; Chinese pages are one folder below the site's root.

    A page whose file is not named as its template gives `other` itself.
    """
    place = dict(language=language, root="../" if language == "zh" else "")
    place |= dict(other=other(language, name.removesuffix(".html")))
    with speaking(language, own_texts()):
        return environment().get_template(name).render(place | values)
