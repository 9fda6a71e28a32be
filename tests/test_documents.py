"""The documents: every block is run or checked, or has a reason why not; every link and every setting exists.

tests/documents/blocks.py describes the comments above a block. `make test-documents` also runs the slow blocks, and lists what was
done with each block.
"""

import os
import re
import subprocess
import sys

import pytest

from polymodal.app.settings import PREFIX, Settings
from tests.documents.blocks import DOCUMENTS, PROJECT, read_blocks
from tests.documents.runner import add_user_data, make_checkout, run_blocks
from tests.serving import running

SLOWLY = bool(os.environ.get("SLOW_DOCUMENTS"))


@pytest.fixture(scope="module")
def service():
    with running(workers=1) as service:
        yield service.port


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_blocks_of_a_document_work(document, service, request, tmp_path):
    blocks, place = read_blocks(document), make_checkout(tmp_path)
    if any("things" in block.text for block in blocks):
        add_user_data(place, request.getfixturevalue("manifest_folder"), request.getfixturevalue("tiny_bundle"))
    report = run_blocks(blocks, place, service, slowly=SLOWLY)
    sys.stdout.write("\n".join(report) + "\n")  # shown by pytest -rP


SETTINGS = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_settings_that_exist(document):
    text = (PROJECT / document).read_text(encoding="utf-8")
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b(?!…|\*)", text))
    assert named - SETTINGS == set()


# --- links, as a Git host follows them; `make docs` checks those of the site ---

ALL = sorted(
    str(path.relative_to(PROJECT))
    for path in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), PROJECT / "examples/README.md"]
)
CODE = re.compile(r"^ *(```+).*?^ *\1|`[^`]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(path):
    """Return the names by which links to the headings of a document work on a Git host."""
    text = re.sub(r"^ *(```+).*?^ *\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names = []
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return names


@pytest.mark.parametrize("document", ALL)
def test_the_links_of_a_document_have_targets(document):
    broken = []
    for target, anchor in LINK.findall(CODE.sub("", (PROJECT / document).read_text(encoding="utf-8"))):
        if ":" in target:
            continue
        path = (PROJECT / document).parent / target if target else PROJECT / document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert broken == []


def test_anchors_are_those_of_a_git_host(tmp_path):
    (tmp_path / "page.md").write_text(
        "# `GET /v1/models`, and [more](x.md)\n## Why 415 or 422?\n```sh\n# no heading\n```\n## Why 415 or 422?\n",
        encoding="utf-8",
    )
    assert anchors(tmp_path / "page.md") == ["get-v1models-and-more", "why-415-or-422", "why-415-or-422-1"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_site_is_complete_and_loads_nothing_external(tmp_path):
    """As `make docs`: mkdocs checks links, anchors and navigation, scripts/mkdocs_hooks.py checks what the pages load."""
    pytest.importorskip("material", reason="make docs installs what the site needs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "index.html",
        "api.html",
        "SECURITY.html",
        "decisions/0001-onnx-graphs-without-weights.html",
        "search/search_index.js",
    ):
        assert (tmp_path / "site" / name).is_file()
