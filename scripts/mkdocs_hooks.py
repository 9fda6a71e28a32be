"""Hooks of mkdocs: add documents from outside docs/ to the site, rewrite links, and forbid resources of other hosts.

A link that works on a Git host becomes a link that works in the site: to the page of that document, or to a copy of that
file.
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
"""Paths of documents outside docs/, and their paths in the site."""
SOURCES = {uri: path for path, uri in PAGES.items()}
LINK = re.compile(
    r"^ *(?P<fence>```+).*?^ *(?P=fence)|`[^`]*`|\]\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)
"""A link to a file, or a piece of code, in which links are not rewritten."""
BAR = re.compile(r"(?<=[| ])`([^`\n]*\\\|[^`\n]*)`")
"""Code with a bar in a table: Git hosts hide the backslash, and Python's Markdown would show it."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the documents from outside docs/."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(PROJECT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links in the repository into links in the site."""
    own_uri = page.file.src_uri
    source = SOURCES.get(own_uri, f"docs/{own_uri}")
    folder = posixpath.dirname(own_uri) or "."

    def rewritten(link: re.Match[str]) -> str:
        if not link["path"]:
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        uri = _uri_of(target, config, files)
        return f"]({posixpath.relpath(uri, folder)}{link['anchor'] or ''})" if uri else link[0]

    def escaped(code: re.Match[str]) -> str:
        return f"<code>{html.escape(code[1]).replace(chr(92) + '|', '&#124;')}</code>"

    return BAR.sub(escaped, LINK.sub(rewritten, markdown))


def _uri_of(target: str, config: MkDocsConfig, files: Files) -> str | None:
    """Return the path in the site of a file of the repository; None for a missing file, which mkdocs then reports."""
    if target == "README.md":
        return "index.md"
    if target.startswith("docs/"):
        uri = target.removeprefix("docs/")
        return f"{uri}/README.md" if (PROJECT / target).is_dir() else uri
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
    """Return a copy of a file, or for a folder the list of its files."""
    if path.is_file():
        return File.generated(config, uri, abs_src_path=str(path))
    names = sorted(str(file.relative_to(PROJECT)) for file in path.rglob("*") if file.is_file())
    return File.generated(config, uri, content="\n".join([*names, ""]))


class _Resources(HTMLParser):
    """Collects the addresses on other hosts that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get("src") or ""
        if not address and tag == "link" and values.get("rel") != "canonical":
            address = values.get("href") or ""
        if re.match(r"(https?:)?//", address):
            self.external.append(address)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Fail when a page would load anything from another host."""
    for path in Path(config.site_dir).rglob("*.html"):
        page = _Resources()
        page.feed(path.read_text(encoding="utf-8"))
        if page.external:
            raise PluginError(f"{path.name} loads {', '.join(page.external)}; allowed: nothing from other hosts")
