"""How blocks are parsed, and that errors in a document are reported."""

import pytest

from tests.documents.blocks import BlockError, blocks_of, commands_in, difference, json_values, parse, text_pattern
from tests.documents.runner import run_blocks

COMMENTED = """# Title

<!-- slow: takes a minute -->
```sh
make test
```

## Second

1. In a list:

   ```json
   {"a": 1}
   ```
"""


def blocks(text):
    return list(blocks_of("page.md", text))


def test_blocks_have_their_sections_and_comments():
    first, second = blocks(COMMENTED)
    assert (first.place, first.section, first.mark, first.note) == ("page.md:5", "Title", "slow", "takes a minute")
    assert (second.place, second.section, second.mark, second.text) == ("page.md:13", "Second", "", '{"a": 1}\n')


@pytest.mark.parametrize("language", ["", "text", "promql", "dockerfile"])
def test_all_unchecked_blocks_are_reported_with_the_remedy(tmp_path, language):
    with pytest.raises(BlockError, match=r"page\.md:2: (?s:.*)page\.md:5: (?s:.*)<!-- not run: "):
        run_blocks(blocks(f"```{language}\nwords\n```\n" * 2), tmp_path, shared_port=1)


@pytest.mark.parametrize("mark", ["not run", "not run:", "slow", "fails: "])
def test_a_comment_without_a_reason_is_rejected(mark):
    with pytest.raises(BlockError, match="has no reason"):
        blocks(f"<!-- {mark} -->\n```sh\nmake test\n```\n")


def test_a_command_has_as_many_lines_as_bash_needs():
    script = (
        "# a comment\ncurl \\\n  -d 'one\ntwo'\n\ncat <<END\nhello\nEND\nfor number in 1 2; do\n  echo $number\ndone\n"
    )
    assert list(commands_in(script)) == [
        (1, "curl \\\n  -d 'one\ntwo'"),
        (5, "cat <<END\nhello\nEND"),
        (8, "for number in 1 2; do\n  echo $number\ndone"),
    ]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        pytest.param("json", '{"a": }', id="json"),
        pytest.param("yaml", "a: [1", id="yaml"),
        pytest.param("toml", "a = ", id="toml"),
        pytest.param("csv", "a,b\n1", id="csv"),
        pytest.param("env", "POLYMODAL_PORT 8000", id="env"),
    ],
)
def test_a_block_that_is_not_in_its_language_is_reported(language, text):
    (block,) = blocks(f"```{language}\n{text}\n```\n")
    with pytest.raises(BlockError, match=f"page.md:2: not {language}: "):
        parse(block)


@pytest.mark.parametrize(
    ("shown", "actual", "problem"),
    [
        pytest.param({"a": 1}, {"a": 1}, "", id="equal"),
        pytest.param({"a": 1}, {"a": 2}, ".a: 1, but it is 2", id="other-value"),
        pytest.param({"a": 1}, {"b": 1}, ": the fields a, but they are b", id="other-field"),
        pytest.param({"a": "…"}, {"a": [1, 2]}, "", id="any-value"),
        pytest.param({"a": "b1ae…"}, {"a": "b1ae40"}, "", id="beginning"),
        pytest.param({"a": "b1ae…"}, {"a": "c0"}, ".a: 'b1ae…', but it is 'c0'", id="other-beginning"),
        pytest.param([1, "…"], [1, 2, 3], "", id="any-more"),
        pytest.param([1, "…"], [2, 2, 3], "[0]: 1, but it is 2", id="other-first"),
        pytest.param([1], [1, 2], ": 1 of them, but there are 2", id="too-few"),
        pytest.param({"score": 0.93}, {"score": 0.931}, "", id="near"),
        pytest.param({"score": 0.93}, {"score": 0.95}, ".score: 0.93, but it is 0.95", id="far"),
        pytest.param({"id": "0" * 32}, {"id": "f" * 32}, "", id="identifiers"),
    ],
)
def test_a_shown_value_is_compared_with_the_actual_one(shown, actual, problem):
    assert difference(shown, actual) == problem


def test_a_text_may_have_several_json_values():
    assert json_values('{"a": 1}\n[2]\n') == [{"a": 1}, [2]]


def test_a_listing_may_omit_lines():
    pattern = text_pattern("first\n…\nlast\n")
    assert pattern.fullmatch("first\nlast\n")
    assert pattern.fullmatch("first  \nsecond\nthird\nlast\n")
    assert not pattern.fullmatch("first\nsecond\n")


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "polymodal"
    folder.mkdir()
    (folder / "Makefile").write_text("test: all\n\techo no\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text("[project.optional-dependencies]\ntrain = []\n", encoding="utf-8")
    return folder


def test_a_document_is_run_in_order_by_one_shell(place):
    document = """
<!-- file: notes/words.json -->
```json
{"a": [1, 2]}
```
```sh
NAME=notes/words.json    # is kept
```
```sh
cat $NAME
```
```json
{"a": [1, "…"]}
```
```python
import pathlib
print(pathlib.Path("notes/words.json").read_text().strip())
```
<!-- output -->
```
{"a": [1, 2]}
```
<!-- fails: there is no such file -->
```sh
cat lost
```
<!-- not run: no cluster -->
```sh
kubectl get pods
```
"""
    lines = run_blocks(blocks(document), place, shared_port=1)
    assert [line.split(": ", 1)[1].split(" (")[0] for line in lines] == [
        "written", "run", "run", "parsed", "run", "compared", "run", "not run"
    ]  # fmt: skip
    assert lines[-1].endswith("not run (no cluster)")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        pytest.param("```sh\ntrue\nfalse\n```", "page.md:3: exit code 1", id="failed-command"),
        pytest.param("```sh\nfalse | true\n```", "page.md:2: exit code 1", id="failed-command-in-a-pipe"),
        pytest.param("```sh\nmake tset\n```", "no target tset", id="unknown-make-target"),
        pytest.param("```sh\npip install 'polymodal[trian]'\n```", "trian: no extra", id="unknown-extra"),
        pytest.param(
            "```sh\ndocker compose up\n```", "page.md:2: docker reaches beyond", id="command-that-reaches-beyond"
        ),
        pytest.param("```python\nraise SystemExit(3)\n```", "page.md:2: exit code 3", id="python"),
        pytest.param(
            '```sh\necho \'{"a": 1}\'\n```\n```json\n{"a": 2}\n```', ".a: 2, but it is 1", id="another-answer"
        ),
        pytest.param(
            "```sh\necho 1\n```\n<!-- output -->\n```\n2\n```", "page.md:6: not the output", id="another-output"
        ),
        pytest.param("<!-- fails: so it says -->\n```sh\ntrue\n```", "instead of an exit code other", id="no-failure"),
    ],
)
def test_an_error_in_a_document_is_reported(place, document, problem):
    with pytest.raises(BlockError) as caught:
        run_blocks(blocks(document), place, shared_port=1)
    assert problem in str(caught.value)


def test_slow_blocks_are_skipped_by_default(place):
    (block,) = blocks("<!-- slow: a minute -->\n```sh\ntouch made\n```")
    assert run_blocks([block], place, shared_port=1) == ["page.md:3 sh: skipped, slow (a minute)"]
    assert not (place / "made").exists()
    assert run_blocks([block], place, shared_port=1, slowly=True) == ["page.md:3 sh: run (a minute)"]
    assert (place / "made").exists()
