"""Pages of the files in docs/ to which notebooks lead.

A file has both languages, the second below a heading; its page has the reader's own.
"""

import re
from pathlib import Path

from markupsafe import Markup

from efflab.lab.text import speaking, tr
from efflab.publishing.catalog import catalog, find
from efflab.publishing.site.notebook_pages import DOCUMENT, Page, render_markdown
from efflab.publishing.site.templates import other, own_texts, render

SWITCH, CHINESE = "In English and in Chinese / [中文](#中文).\n", "\n## 中文\n"


def linked_documents(folder: Path) -> list[str]:
    """Names of the documents to which the notebooks of a folder lead."""
    sources = (find(entry["name"], folder) for entry in catalog(folder).values())
    found = (re.findall(DOCUMENT, path.read_text(encoding="utf-8")) for path in sources)
    return sorted({name for names in found for name in names})


def write(path: Path, language: str) -> str:
    """The page of one document, whose first heading is its title."""
    source, page = path.read_text(encoding="utf-8"), Page("", {})
    title = source.partition("\n")[0].removeprefix("# ")
    english, _, chinese = source.partition(CHINESE)
    with speaking(language, own_texts()):
        text = chinese if language == "zh" else english.replace(SWITCH, "")
        values = dict(title=tr(title), body=Markup(render_markdown(text, page)))
    values |= dict(contents=page.contents, section="documents", other=other(language, path.stem))
    return render("document.html", language, **values)
