"""What mkdocs is told by code: documents from outside docs/ join the site, and it loads nothing from elsewhere.

A link that is right where a Git host shows the repository becomes one that is right in the site: to the page made of that
document, or to a copy of that file.
"""

import html
import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[1]
PAGES = {
    "SECURITY.md": "SECURITY.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "examples/README.md": "examples/README.md",
    "model/bundles/illustrations/README.md": "model/illustrations.md",
}
"""Documents outside docs/, and where they stand in the site."""
SOURCES = {uri: path for path, uri in PAGES.items()}
LINK = re.compile(
    r"^ *(?P<fence>```+).*?^ *(?P=fence)|`[^`]*`|\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)
"""A link to a file, or code, in which there are none."""
BAR = re.compile(r"(?<=[| ])`([^`\n]*\\\|[^`\n]*)`")
"""Code in a table with a bar in it, whose backslash Git hosts leave out and Python's Markdown would show."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the documents from outside docs/."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(PROJECT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links through the repository into links through the site."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def turned(found: re.Match[str]) -> str:
        if not found["path"]:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["path"]))
        uri = _place(target, config, files)
        return (
            f"]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{found['anchor'] or ''})" if uri else found[0]
        )

    return BAR.sub(
        lambda code: f"<code>{html.escape(code[1]).replace(chr(92) + '|', '&#124;')}</code>", LINK.sub(turned, markdown)
    )


def _place(target: str, config: MkDocsConfig, files: Files) -> str | None:
    """Where a file of the repository stands in the site; None when it stands nowhere, which mkdocs then reports."""
    if target == "README.md":
        return "index.md"
    if target.startswith("docs/"):
        inside = target.removeprefix("docs/")
        return f"{inside}/README.md" if (PROJECT / target).is_dir() else inside
    if target in PAGES:
        return PAGES[target]
    path = PROJECT / target
    if not path.exists():
        return None
    uri = f"files/{target}" if target.endswith((".png", ".svg", ".json")) else f"files/{target.lstrip('.')}.txt"
    if not files.get_file_from_path(uri):
        files.append(_copy(path, uri, config))
    return uri


def _copy(path: Path, uri: str, config: MkDocsConfig) -> File:
    """A file as it is, a folder as the list of its files."""
    if path.is_file():
        return File.generated(config, uri, abs_src_path=str(path))
    names = sorted(str(each.relative_to(PROJECT)) for each in path.rglob("*") if each.is_file())
    return File.generated(config, uri, content="\n".join([*names, ""]))


class _Loads(HTMLParser):
    """Collects what a page makes a browser fetch from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        address = (
            named.get("src") or (named.get("href") if tag == "link" and named.get("rel") != "canonical" else "") or ""
        )
        if re.match(r"(https?:)?//", address):
            self.outside.append(address)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Refuse a site that would ask another host for anything."""
    for path in Path(config.site_dir).rglob("*.html"):
        page = _Loads()
        page.feed(path.read_text(encoding="utf-8"))
        if page.outside:
            raise PluginError(
                f"{path.name} loads {', '.join(page.outside)}; the site must ask no other host for anything"
            )
