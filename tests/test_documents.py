"""The documents: every block of them is run or checked, or says why not; every link leads somewhere; every setting exists.

What a comment above a block can say stands in tests/documents/blocks.py. `make test-documents` runs the slow blocks too, and lists
what was done with each.
"""

import os
import re
import subprocess
import sys

import pytest

from polymodal.app.settings import PREFIX, Settings
from tests.documents.blocks import DOCUMENTS, PROJECT, read_blocks
from tests.documents.reader import make_place, put_things, read
from tests.serving import running

SLOWLY = bool(os.environ.get("SLOW_DOCUMENTS"))


@pytest.fixture(scope="module")
def service():
    with running(workers=1) as service:
        yield service.port


@pytest.mark.timeout(600)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_says_is_so(document, service, request, tmp_path):
    blocks, place = read_blocks(document), make_place(tmp_path)
    if any("things" in block.text for block in blocks):
        put_things(place, request.getfixturevalue("manifest_folder"), request.getfixturevalue("tiny_bundle"))
    told = read(blocks, place, service, slowly=SLOWLY)
    sys.stdout.write("\n".join(told) + "\n")  # shown by pytest -rP


SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_settings_that_exist(document):
    text = (PROJECT / document).read_text(encoding="utf-8")
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b(?!…|\*)", text))
    assert named - SETTINGS == set()


# --- links, as a Git host follows them; `make docs` looks at those of the site ---

ALL = sorted(
    str(path.relative_to(PROJECT))
    for path in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), PROJECT / "examples/README.md"]
)
CODE = re.compile(r"^ *(```+).*?^ *\1|`[^`]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(path):
    """What a Git host calls the headings of a document."""
    text = re.sub(r"^ *(```+).*?^ *\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return found


@pytest.mark.parametrize("document", ALL)
def test_a_link_leads_somewhere(document):
    lost = []
    for target, anchor in LINK.findall(CODE.sub("", (PROJECT / document).read_text(encoding="utf-8"))):
        if ":" in target:
            continue
        path = (PROJECT / document).parent / target if target else PROJECT / document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(f"{target}#{anchor}" if anchor else target)
    assert lost == []


def test_anchors_are_what_a_git_host_makes_of_headings(tmp_path):
    (tmp_path / "page.md").write_text(
        "# `GET /v1/models`, and [more](x.md)\n## Why 415 or 422?\n```sh\n# no heading\n```\n## Why 415 or 422?\n",
        encoding="utf-8",
    )
    assert anchors(tmp_path / "page.md") == ["get-v1models-and-more", "why-415-or-422", "why-415-or-422-1"]


@pytest.mark.timeout(120)
def test_the_site_is_whole_and_asks_nobody(tmp_path):
    """What `make docs` does; its links, anchors and navigation are checked by mkdocs, what it loads by scripts/mkdocs_hooks.py."""
    pytest.importorskip("material", reason="make docs installs what the site needs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    told = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for name in (
        "index.html",
        "api.html",
        "SECURITY.html",
        "decisions/0001-graphs-without-weights.html",
        "search/search_index.js",
    ):
        assert (tmp_path / "site" / name).is_file()
