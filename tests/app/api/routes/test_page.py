import re
from importlib.resources import files
from pathlib import Path

import pytest

WEB = Path(str(files("polymodal.app"))) / "web"
FILES = sorted(path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file())
MODULES = [file for file in FILES if file.endswith(".js")]


def text_of(file):
    return (WEB / file).read_text(encoding="utf-8")


async def test_the_page_is_served_with_a_policy_that_allows_nothing_from_elsewhere(client):
    answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "require-trusted-types-for 'script'" in policy


async def test_everything_the_page_needs_is_here(client):
    page = (await client.get("/")).text
    for address in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert (await client.get(f"/{address}")).status_code == 200, address


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith(".png")])
async def test_no_file_of_the_page_names_an_outside_address(client, file):
    content = (await client.get(f"/web/{file}")).text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|[\"'(]//[a-z]", content)


async def test_the_pages_files_are_asked_for_again_each_time_which_costs_nothing_while_they_are_the_same(client):
    first = await client.get("/web/main.js")
    again = await client.get("/web/main.js", headers={"If-None-Match": first.headers["ETag"]})
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")


async def test_what_is_no_file_of_the_page_is_a_problem_like_any_other(client):
    answer = await client.get("/web/../settings.py")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize("file", MODULES)
def test_a_module_that_is_imported_exists(file):
    for imported in re.findall(r'from "\./([^"]+)"', text_of(file)):
        assert imported in FILES


@pytest.mark.parametrize("file", MODULES)
def test_nothing_is_ever_read_as_html(file):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text_of(file))


# --- words ---

STRINGS = dict(re.findall(r'^  "?([\w./+-]+)"?:\s*"((?:[^"\\]|\\.)*)",$', text_of("strings.js"), re.MULTILINE))
DYNAMIC = re.compile(r"say(?:Count|Of)?\(\s*`([^`$]*)\$\{")
"""A key of which the beginning alone is known where it is used."""


def said_in(content):
    yield from re.findall(r'say(?:Of)?\(\s*"([^"]+)"', content)
    yield from re.findall(r'data-say(?:-label)?="([^"]+)"', content)
    yield from (f"{key}.other" for key in re.findall(r'sayCount\("([^"]+)"', content))


def test_every_word_of_strings_is_found_here():
    assert len(STRINGS) == len(re.findall(r'^  "?[\w./+-]+"?:', text_of("strings.js"), re.MULTILINE)) > 200


@pytest.mark.parametrize("file", ["index.html", *MODULES])
def test_what_the_page_says_stands_in_strings(file):
    content = text_of(file)
    assert set(said_in(content)) <= set(STRINGS)
    for beginning in DYNAMIC.findall(content):
        assert any(key.startswith(beginning) for key in STRINGS), beginning


def test_nothing_stands_in_strings_that_the_page_never_says():
    contents = [text_of(file) for file in ("index.html", *MODULES) if file != "strings.js"]
    said = {key for content in contents for key in said_in(content)}
    stems = tuple(stem for content in contents for stem in re.findall(r"`([a-z.-]+[.-])\$\{", content))
    quoted = {key for content in contents for key in re.findall(r'"([\w./+-]+)"', content)}
    special = re.compile(r"\.(image|text|image\+text)$")  # for one input or one set of inputs
    unsaid = {
        key
        for key in STRINGS
        if {key, special.sub("", key)}.isdisjoint(said | quoted)
        and not key.startswith(stems)
        and key.rpartition(".")[0] + ".other" not in said
    }
    assert not unsaid


@pytest.mark.parametrize("code", ["overloaded", "rate_limited", "unauthorized", "undecodable", "deadline_exceeded"])
def test_problems_are_told_in_plain_words(code):
    assert f"problem.{code}" in STRINGS
