"""The file of keys: its format, its commands, and how a running service reads changes."""

import hashlib
import json
import os
import stat
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from polymodal.app.access.keys import (
    MAX_FILE_BYTES,
    MAX_KEYS,
    KeysError,
    KeysFile,
    digest,
    new_key,
    parse_keys,
    read_keys,
)
from polymodal.app.cli import app
from tests.clock import Clock

RECORD = {"name": "shop", "sha256": "ab" * 32, "scopes": ["classify"], "created": "2026-01-01T00:00:00Z"}


def as_json(*records: dict, **more) -> bytes:
    return json.dumps({"keys": records, **more}).encode()


def polymodal(*arguments):
    return CliRunner().invoke(app, ["keys", *map(str, arguments)])


def problem_with(content: bytes) -> str:
    """Return the message for a file of JSON; empty if it is valid."""
    try:
        parse_keys(content, toml=False)
    except KeysError as problem:
        return str(problem)
    return ""


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def add(path):
    """A function that adds a key and returns it."""
    return lambda name, *options: polymodal("add", name, "--file", path, *options).stdout.strip()


@pytest.fixture
def stale():
    """The arguments of calls of `stale`."""
    return []


# --- the format ---


def test_json_and_toml_are_equivalent():
    toml = b"""
        [[keys]]
        name = "shop"
        sha256 = "%s"
        scopes = ["classify"]
        created = 2026-01-01T00:00:00Z
    """ % (b"ab" * 32)
    assert parse_keys(toml, toml=True) == parse_keys(as_json(RECORD), toml=False)


@pytest.mark.parametrize(
    "day", ["2027-01-31", "2027-01-31T00:00:00", "2027-01-31T00:00:00Z", "2027-01-31T02:00:00+02:00"]
)
def test_a_time_without_a_zone_is_in_utc(day):
    (key,) = parse_keys(as_json(RECORD | {"expires": day}), toml=False)
    assert key.expires == datetime(2027, 1, 31, tzinfo=UTC)
    assert key.expired(datetime(2027, 1, 31, tzinfo=UTC))
    assert not key.expired(datetime(2027, 1, 30, 23, 59, 59, tzinfo=UTC))


def test_a_day_in_toml_is_midnight_in_utc():
    content = '[[keys]]\nname="a"\nsha256="%s"\nscopes=["docs"]\ncreated=2026-01-01\nexpires=2027-01-31' % ("ab" * 32)
    assert parse_keys(content.encode(), toml=True)[0].expires == datetime(2027, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "not readable as JSON", id="empty"),
        pytest.param(b"\xff{}", "not readable as JSON", id="not-utf-8"),
        pytest.param(b"[" * 100_000, "not readable as JSON", id="deep"),
        pytest.param(b"[]", "the file: ", id="no-object"),
        pytest.param(b"{}", "keys: field required", id="no-keys"),
        pytest.param(as_json(secret="x"), "(unknown field): extra inputs", id="unknown-field"),
        pytest.param(
            as_json({**RECORD, "key": "x"}), "keys.0.(unknown field): extra inputs", id="unknown-field-of-a-key"
        ),
        pytest.param(as_json(RECORD | {"sha256": "AB" * 32}), "keys.0.sha256: ", id="upper-case-digest"),
        pytest.param(as_json(RECORD | {"sha256": "ab" * 32 + "\n"}), "keys.0.sha256: ", id="digest-and-newline"),
        pytest.param(as_json(RECORD | {"name": "a b"}), "allowed: up to 64 letters", id="name"),
        pytest.param(as_json(RECORD | {"name": "a\n"}), "keys.0.name: ", id="name-and-newline"),
        pytest.param(as_json(RECORD | {"scopes": []}), "keys.0.scopes: ", id="no-scope"),
        pytest.param(
            as_json(RECORD | {"scopes": ["all"]}),
            "'classify', 'embed', 'transcribe', 'search', 'models', 'metrics' or 'docs'",
            id="scope",
        ),
        pytest.param(as_json(RECORD | {"expires": "soon"}), "keys.0.expires: ", id="expires"),
        pytest.param(as_json(RECORD, RECORD | {"sha256": "cd" * 32}), "the name shop twice", id="same-name"),
        pytest.param(as_json(RECORD, RECORD | {"name": "other"}), "the same sha256 twice", id="same-key"),
        pytest.param(as_json(*[RECORD] * (MAX_KEYS + 1)), "at most 1000 items", id="too-many"),
    ],
)
def test_an_invalid_file_is_rejected_with_the_reason(content, problem):
    assert problem in problem_with(content)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_keys_or_a_keys_error(content, toml):
    try:
        keys = parse_keys(content, toml=toml)
    except KeysError:
        return
    assert keys == ()  # 200 random bytes contain no record


MARKED = st.text(max_size=20).map("marker-4711".__add__)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | MARKED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MARKED, inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([*RECORD, "expires", "more"]), VALUES)
def test_a_message_never_repeats_a_value(field, value):
    assert "marker-4711" not in problem_with(as_json(RECORD | {field: value}))


def test_a_message_never_repeats_a_key_that_was_pasted_into_the_file():
    key = new_key()
    for fields in ({"sha256": key}, {"name": f"{key} "}, {key: 1}, {"scopes": [key]}):
        message = problem_with(as_json(RECORD | fields))
        assert message
        assert key not in message


def test_a_file_above_the_limit_is_rejected(path):
    path.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(KeysError, match="more than 1,048,576 bytes"):
        read_keys(path)


# --- the commands ---


def test_a_new_key_is_printed_once_and_only_its_hash_is_written(path):
    result = polymodal("add", "shop", "--file", path)
    key = result.stdout.strip()
    assert key.startswith("pm_")
    assert len(key) == 3 + 43  # 256 bits, six per character
    assert key not in path.read_text()
    assert key not in result.stderr
    (record,) = read_keys(path)
    assert record.sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert record.scopes == {"classify", "models"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_are_listed_and_removed_by_name(path, add):
    add("shop", "--scope", "classify")
    add("robot", "--scope", "metrics", "--scope", "docs", "--expires", "90d")
    shown = polymodal("list", "--file", path).stdout
    assert all(word in shown for word in ("shop", "classify", "never", "robot", "docs, metrics"))
    assert polymodal("remove", "shop", "--file", path).exit_code == 0
    assert [key.name for key in read_keys(path)] == ["robot"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["add", "shop"], "has a key named shop; allowed: another name", id="same-name"),
        pytest.param(["add", "a/b"], "allowed: up to 64 letters", id="bad-name"),
        pytest.param(
            ["add", "new", "--scope", "all"],
            "'classify', 'embed', 'transcribe', 'search', 'models', 'metrics' or 'docs'",
            id="bad-scope",
        ),
        pytest.param(["add", "new", "--expires", "2001-01-01"], "2001-01-01 is over", id="in-the-past"),
        pytest.param(["add", "new", "--expires", "soon"], "allowed: a day such as", id="no-time"),
        pytest.param(["remove", "new"], "no key named 'new'; allowed: shop", id="unknown"),
    ],
)
def test_a_command_that_fails_prints_the_reason_and_changes_nothing(path, add, arguments, problem):
    add("shop")
    before = path.read_bytes()
    result = polymodal(*arguments, "--file", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr
    assert path.read_bytes() == before


def test_a_replaced_file_keeps_its_mode_without_access_for_everyone(path, add):
    add("shop")
    path.chmod(0o644)
    add("robot")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_toml_is_not_written(tmp_path):
    assert polymodal("add", "shop", "--file", tmp_path / "keys.toml").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_file_stays(path, add):
    add("shop")
    add("robot")
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


# --- a running service ---


def test_a_key_is_found_by_its_value(path, add, clock, stale):
    shop, robot = add("shop"), add("robot")
    keys = KeysFile(path, stale.append, clock)
    assert keys.find(shop).name == "shop"
    assert keys.find(robot).name == "robot"
    assert keys.find(shop[:-1]) is None
    assert keys.find("") is None


def test_a_change_is_read_after_a_second_and_not_before(path, add, clock, stale):
    shop = add("shop")
    keys = KeysFile(path, stale.append, clock)
    robot = add("robot")
    polymodal("remove", "shop", "--file", path)
    clock.now = 0.9
    assert keys.find(shop)
    clock.now = 1.0
    assert keys.find(shop) is None
    assert keys.find(robot)


@pytest.mark.parametrize("content", [b"{", b'{"keys": [{}]}', None], ids=["cut-off", "wrong", "gone"])
def test_a_file_that_becomes_unreadable_is_logged_once_and_its_keys_stay_valid(path, add, clock, stale, logs, content):
    shop = add("shop")
    keys = KeysFile(path, stale.append, clock)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    for clock.now in (1.0, 2.0, 3.0):
        assert keys.find(shop)
    (entry,) = [entry for entry in logs if entry["event"] == "api_keys_file_refused"]
    assert (entry["log_level"], entry["still_valid"]) == ("error", 1)
    assert str(path) in entry["problem"]
    path.unlink(missing_ok=True)
    robot = add("robot")
    clock.now = 4.0
    assert keys.find(robot)
    assert keys.find(shop) is None
    assert stale == [True, False]


def test_a_file_that_everyone_can_read_is_logged(path, add, clock, stale, logs):
    add("shop")
    path.chmod(0o644)
    KeysFile(path, stale.append, clock)
    (entry,) = [entry for entry in logs if entry["event"] == "api_keys_file_readable_by_all"]
    assert entry["next"] == f"chmod o= {path}"


def test_a_link_to_another_file_is_a_change(tmp_path, clock, stale):
    for name in ("one", "two"):
        polymodal("add", name, "--file", tmp_path / f"{name}.json")
    link = tmp_path / "keys.json"
    link.symlink_to("one.json")
    keys = KeysFile(link, stale.append, clock)
    assert keys.count == 1
    content = as_json(RECORD | {"sha256": digest("known")})
    (tmp_path / "two.json").write_bytes(content)
    other = tmp_path / "new"
    other.symlink_to("two.json")
    os.replace(other, link)
    clock.now = 1.0
    assert keys.find("known").name == "shop"
