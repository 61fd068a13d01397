"""The notebooks' pages: stored cells through nbconvert with our own template and renderer.

Formulas become MathML; the scripts that compare, fold and draw on the page are in web/static.
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from latex2mathml.converter import convert
from markupsafe import Markup
from mistune import InlineParser, InlineState, Markdown
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from efflab.base.formats import PLOTLY
from efflab.lab.page import CONFIG
from efflab.lab.text import chinese, speaking, tr
from efflab.lab.typed import WORDS
from efflab.lab.verdict import load_claims
from efflab.publishing.site.templates import STATIC, WEB, other, own_texts, render
from efflab.publishing.source import TWIN, code_cells, read_built

RESOLVERS = {"arxiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
DOCUMENT = r"(?:\.\./)+docs/([\w-]+)\.md"
REFERENCE = r"(?P<resolver>arXiv|doi):\s?(?P<work>[\w.()/-]*\w)"


@dataclass
class Page:
    """A page in the making: it is given how to open its notebook and the claims' addresses, and
    collects its headings."""

    opening: str
    claims: Mapping[str, str]
    longest: int = 15  # most lines of a cell's code that is not folded
    contents: list[dict[str, str]] = field(default_factory=list)

    def add_heading(self, text: str) -> str:
        """Add a heading to the contents; returns its id, which no other heading has."""
        slug = re.sub(r"\W+", "-", text).strip("-") or "section"
        ids = {heading["id"] for heading in self.contents}
        if slug in ids:
            numbered = (f"{slug}-{n}" for n in count(len(ids)))
            slug = next(name for name in numbered if name not in ids)
        self.contents.append(dict(id=slug, text=text))
        return slug


class Renderer(IPythonRenderer):
    """nbconvert's Markdown renderer with MathML, anchors, pages' addresses and tables that scroll.

    The page's template writes the heading of the first level.
    """

    def __init__(self, page: Page):
        super().__init__(escape=False)
        self.page = page

    def heading(self, text: str, level: int, **attrs) -> str:
        if level == 1:
            return ""
        slug = self.page.add_heading(str(Markup(text).striptags()))
        link = f'<a class="anchor" href="#{slug}" aria-label="{tr("Link to this section")}"></a>'
        return f'<h{level} id="{slug}">{text} {link}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, page_address(url), title)

    def codespan(self, text: str) -> str:
        code = super().codespan(text)
        known = self.page.claims.get(text)
        return f'<a href="{known}">{code}</a>' if known else code

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>\n{text}</table></div>\n'

    def table_head(self, text: str) -> str:
        # Markdown requires a head; one without words is left out
        return f"<thead>\n<tr>\n{text}</tr>\n</thead>\n" if Markup(text).striptags() else ""

    def block_math(self, body: str) -> str:
        return f'<span class="scroll math">{convert(body, display="block")}</span>'

    def inline_math(self, body: str) -> str:
        return convert(body)


class Exporter(HTMLExporter):
    """nbconvert's exporter with our template and renderer, for the notebook of one page."""

    def __init__(self, page: Page):
        folders = [str(WEB / "templates")]
        super().__init__(template_name="notebook", extra_template_basedirs=folders)
        self.page = page
        self.environment.policies["json.dumps_kwargs"] = dict(ensure_ascii=False)

    @property
    def default_config(self):
        config = super().default_config
        config.NbConvertBase.display_data_priority = [
            PLOTLY, "text/html", "text/markdown", "image/png", "text/plain",
        ]  # fmt: skip
        return config

    def default_filters(self):
        yield from super().default_filters()
        yield from dict(tr=tr, names=names, figure=figure, to_json=to_json).items()

    def markdown2html(self, source: str) -> str:
        """The filter of this name in nbconvert's templates and ours."""
        return render_markdown(source, self.page)


def render_markdown(source: str, page: Page) -> str:
    """Markdown as HTML for a page, with links to what is cited."""
    markdown = MarkdownWithMath(renderer=Renderer(page))
    link_references(markdown)
    return markdown.render(source)


def link_references(markdown: Markdown) -> None:
    """A mistune plugin: arXiv:1706.03762 and doi:10.1145/1498765.1498785 become links."""

    def parse(inline: InlineParser, match: re.Match, state: InlineState) -> int:
        url = RESOLVERS[match["resolver"].lower()] + match["work"]
        children = [{"type": "text", "raw": match[0]}]
        state.append_token({"type": "link", "children": children, "attrs": {"url": url}})
        return match.end()

    markdown.inline.register("reference", REFERENCE, parse, before="link")


def page_address(url: str) -> str:
    """The page's address for a notebook's, or for a file's in docs/; any other stays.

    >>> page_address("03_sparse_attention.ipynb#x"), page_address("https://a.b/c.ipynb")
    ('03_sparse_attention.html#x', 'https://a.b/c.ipynb')
    >>> page_address("../docs/glossary.md#x")
    'glossary.html#x'
    """
    path, mark, anchor = url.partition("#")
    document = re.fullmatch(DOCUMENT, path)
    if document:
        return f"{document[1]}.html{mark}{anchor}"
    if "://" in path or not path.endswith(".ipynb"):
        return url
    return path.removesuffix(".ipynb") + ".html" + mark + anchor


def names(source: str) -> str:
    """What a listing defines: "attend_in_blocks, Cut"."""
    return ", ".join(node.name for node in ast.parse(source).body if hasattr(node, "name"))


def figure(spec: dict) -> dict:
    """A stored figure as the page draws it: our options, without the frames of plotly's menus."""
    frames = [frame for frame in spec.get("frames", []) if "/" in frame["name"]]
    return {**spec, "frames": frames, "config": CONFIG}


def to_json(value) -> str:
    """JSON that cannot end the script around it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def add_answers(notebook: NotebookNode) -> None:
    """Give each stored prediction the number that is revealed later.

    A prediction without one is shown as it is stored, without a field.
    """
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    stored = [output.get("metadata", {}) for output in outputs]
    pairs = (data["answer"] for data in stored if "answer" in data)
    answers = {answer["question"]: answer["measured"] for answer in pairs}
    for data in stored:
        question = data.get("prediction", {}).get("question")
        if question in answers:
            data["prediction"]["measured"] = answers[question]
        else:
            data.pop("prediction", None)


def page_words() -> dict[str, str]:
    """{English: the language in use} of what the page's scripts say."""
    scripts = [STATIC / name for name in ("numbers.js", "predictions.js")]
    texts = re.findall(r'"([^"\n]+)"', "".join(path.read_text("utf-8") for path in scripts))
    return {text: tr(text) for text in texts if chinese(text) is not None}


def opening(file: str, language: str) -> str:
    """The command that starts the notebooks in a language, and the file to open there, as HTML."""
    command = "efflab lab" if language == "en" else f"efflab lab --language {language}"
    code = Markup("<code>{}</code>").format
    return Markup(tr("{command}, and open {file}")).format(command=code(command), file=code(file))


def claim_addresses(entry: Mapping, entries: Mapping[str, Mapping]) -> dict[str, str]:
    """{claim: where its verdict stands}, for the page of `entry`."""
    files = {number: f"{known['name']}.html" for number, known in entries.items()}
    files[entry["name"][:2]] = ""
    homes = {id: claim["notebook"] for id, claim in load_claims().items()}
    return {id: f"{files[number]}#{id}" for id, number in homes.items() if number in files}


def write(path: Path, language: str, entries: Mapping[str, Mapping], plotly: str) -> str:
    """The page of one built notebook.

    `entries`: the catalog; `plotly`: the address of its script.
    """
    number = path.stem[:2]
    entry, notebook = entries[number], read_built(path)
    first = notebook.cells[0]
    # the page's own switch of languages stands above
    first.source = first.source.replace(TWIN[language].format(name=path.stem), "")
    add_answers(notebook)
    with speaking(language, own_texts()):
        page = Page(opening(path.name, language), claim_addresses(entry, entries))
        body, _ = Exporter(page).from_notebook_node(notebook, {"page": page})
        data = {"words": page_words(), **WORDS}
    return render(
        "notebook.html",
        language,
        title=f"{number} · {entry['title'][language]}",
        finds=entry.get("finds", {}).get(language, ""),
        **neighbours(number, entries, language),
        section="notebooks",
        other=other(language, path.stem),
        contents=page.contents,
        opening=page.opening,
        body=Markup(body),
        data=data,
        plotly=plotly,
    )


def neighbours(number: str, entries: Mapping[str, Mapping], language: str) -> dict:
    """Address and name of the notebooks before and after; None at either end."""
    pages = {
        n: dict(address=f"{entry['name']}.html", name=f"{n} · {entry['title'][language]}")
        for n, entry in entries.items()
    }
    order = [None, *pages.values(), None]
    here = list(pages).index(number)
    return dict(previous=order[here], next=order[here + 2])
