import re
from importlib.resources import files
from pathlib import Path

import pytest

WEB = Path(str(files("polymodal.app"))) / "web"
FILES = sorted(path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file())
MODULES = [file for file in FILES if file.endswith(".js")]


def text_of(file):
    return (WEB / file).read_text(encoding="utf-8")


async def test_the_pages_policy_allows_no_other_host(client):
    answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "require-trusted-types-for 'script'" in policy


async def test_every_file_that_the_page_names_is_served(client):
    page = (await client.get("/")).text
    for address in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert (await client.get(f"/{address}")).status_code == 200, address


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith(".png")])
async def test_no_file_of_the_page_has_an_address_of_another_site(client, file):
    content = (await client.get(f"/web/{file}")).text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|[\"'(]//[a-z]", content)


async def test_the_pages_files_are_revalidated_by_etag(client):
    first = await client.get("/web/main.js")
    again = await client.get("/web/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")


async def test_a_path_outside_of_the_page_is_not_found(client):
    answer = await client.get("/web/../settings.py")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize("file", MODULES)
def test_every_imported_module_exists(file):
    for imported in re.findall(r'from "\./([^"]+)"', text_of(file)):
        assert imported in FILES


@pytest.mark.parametrize("file", MODULES)
def test_no_module_parses_html_or_evaluates_code(file):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text_of(file))


# --- messages ---

STRINGS = dict(re.findall(r'^  "?([\w./+-]+)"?:\s*"((?:[^"\\]|\\.)*)",$', text_of("strings.js"), re.MULTILINE))
DYNAMIC = re.compile(r"message(?:ForCount|For|Or)?\(\s*`([^`$]*)\$\{")
"""Beginning of a key whose end is computed."""


def keys_in(content):
    yield from re.findall(r'message(?:For)?\(\s*"([^"]+)"', content)
    yield from re.findall(r'data-message(?:-label)?="([^"]+)"', content)
    yield from (f"{key}.other" for key in re.findall(r'messageForCount\("([^"]+)"', content))


def test_this_test_reads_every_message_of_strings():
    assert len(STRINGS) == len(re.findall(r'^  "?[\w./+-]+"?:', text_of("strings.js"), re.MULTILINE)) > 200


@pytest.mark.parametrize("file", ["index.html", *MODULES])
def test_every_message_of_the_page_is_in_strings(file):
    content = text_of(file)
    assert set(keys_in(content)) <= set(STRINGS)
    for beginning in DYNAMIC.findall(content):
        assert any(key.startswith(beginning) for key in STRINGS), beginning


def test_every_message_of_strings_is_used():
    contents = [text_of(file) for file in ("index.html", *MODULES) if file != "strings.js"]
    used = {key for content in contents for key in keys_in(content)}
    stems = tuple(stem for content in contents for stem in re.findall(r"`([a-z.-]+[.-])\$\{", content))
    quoted = {key for content in contents for key in re.findall(r'"([\w./+-]+)"', content)}
    special = re.compile(r"\.(image|text|image\+text)$")  # for one input or one set of inputs
    unused = {
        key
        for key in STRINGS
        if {key, special.sub("", key)}.isdisjoint(used | quoted)
        and not key.startswith(stems)
        and key.rpartition(".")[0] + ".other" not in used
    }
    assert not unused


@pytest.mark.parametrize("code", ["overloaded", "rate_limited", "unauthorized", "undecodable", "deadline_exceeded"])
def test_problems_have_a_message(code):
    assert f"problem.{code}" in STRINGS
