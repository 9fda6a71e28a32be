from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polymodal.app.access.rates import Rate
from polymodal.app.settings import (
    BundleSource,
    IndexSource,
    Settings,
    SettingsError,
    embedded_bundle,
    load_settings,
    variable,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """Two folders that can be set as bundles, in the current folder."""
    for name in ("pets", "plants"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(**environ):
    with pytest.raises(SettingsError) as error:
        load_settings({f"POLYMODAL_{name.upper()}": value for name, value in environ.items()})
    return error.value.problems


def test_an_empty_environment_has_the_defaults():
    assert load_settings({}) == Settings()
    assert Settings().bundles == (embedded_bundle("illustrations"),)


def test_settings_without_an_environment_have_the_defaults(monkeypatch):
    monkeypatch.setenv("POLYMODAL_PORT", "1234")
    assert Settings().port == 8000


def test_a_variable_sets_its_field_and_an_empty_one_counts_as_unset():
    settings = load_settings({"POLYMODAL_PORT": "9000", "POLYMODAL_HOST": "", "PATH": "/bin"})
    assert (settings.port, settings.host) == (9000, "127.0.0.1")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param("pets", ["pets"], id="path"),
        pytest.param("./plants/", ["plants"], id="named-by-its-folder"),
        pytest.param("green=plants", ["green"], id="name-and-path"),
        pytest.param(" green=plants , pets ,", ["green", "pets"], id="several-with-spaces"),
    ],
)
def test_bundles_are_named_paths_in_order(bundles, value, names):
    assert [source.name for source in load_settings({"POLYMODAL_BUNDLES": value}).bundles] == names


def test_indexes_are_named_paths_and_none_by_default(bundles):
    settings = load_settings({"POLYMODAL_INDEXES": "shop=pets,plants"})
    assert settings.indexes == (IndexSource("shop", bundles / "pets"), IndexSource("plants", bundles / "plants"))
    assert load_settings({}).indexes == ()


def test_a_named_bundle_has_the_path_that_was_set(bundles):
    (source,) = load_settings({"POLYMODAL_BUNDLES": "green=plants"}).bundles
    assert source == BundleSource("green", bundles / "plants")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param("port", "99999", "POLYMODAL_PORT=99999: Input should be less than or equal to 65535", id="bound"),
        pytest.param("port", "http", "POLYMODAL_PORT=http: Input should be a valid integer", id="type"),
        pytest.param("runtime", "tpu", "'auto', 'onnx-int8', 'onnx' or 'torch'", id="choice"),
        pytest.param("max_batch_ms", "nan", "POLYMODAL_MAX_BATCH_MS=nan", id="not-a-number"),
        pytest.param(
            "bundles", "nowhere", "nowhere is not a folder; allowed: a folder written by", id="no-such-bundle"
        ),
        pytest.param(
            "indexes",
            "nowhere",
            "nowhere is not a folder; allowed: a folder written by `polymodal index",
            id="no-such-index",
        ),
        pytest.param("indexes", "illustrations", "illustrations is not a folder", id="an-index-is-no-bundle"),
        pytest.param("indexes", ",", "names no index; allowed: path or name=path", id="no-index"),
        pytest.param("indexes", "a b=pets", "the name 'a b'", id="name-of-an-index"),
        pytest.param("bundles", "a=pets,a=plants", "gives the name a twice", id="same-name-twice"),
        pytest.param("bundles", "a/b=pets", "the name 'a/b'", id="name-not-url-safe"),
        pytest.param("bundles", ",", "names no bundle", id="only-commas"),
        pytest.param(
            "max_image_bytes", "99999999", "exceeds POLYMODAL_MAX_BODY_BYTES=20971520", id="larger-than-a-body"
        ),
        pytest.param("rate_limit_per_address", "60", "60: not a rate; allowed: for example 600/minute", id="no-rate"),
        pytest.param("rate_limit_per_key", "60/minute", "without POLYMODAL_API_KEYS_FILE", id="key-limit-without-keys"),
        pytest.param(
            "rate_limit_storage", "mysql://x", "an unknown storage; allowed: memory://, redis://", id="storage"
        ),
        pytest.param("rate_limit_storage", "redis://a:port", "an unknown storage", id="storage-with-a-strange-port"),
        pytest.param("trusted_proxies", "10.0.0.1/8", "'10.0.0.1/8'; allowed: addresses, and networks", id="network"),
        pytest.param("cors_origins", "app.example", "'app.example'; allowed: https://host", id="origin"),
        pytest.param("cors_origins", "https://a.example/x", "allowed: https://host", id="origin-with-a-path"),
        pytest.param("api_keys_file", "nowhere.json", "nowhere.json: No such file", id="no-such-keys"),
        pytest.param("api_keys_file", "pets", "pets: Is a directory", id="keys-in-a-folder"),
        pytest.param("require_api_keys", "true", "POLYMODAL_API_KEYS_FILE is not set", id="no-keys"),
        pytest.param("admin_port", "8000", "POLYMODAL_ADMIN_PORT=8000 is the first port", id="same-port"),
        pytest.param("prot", "80", "POLYMODAL_PROT: no such setting; did you mean POLYMODAL_PORT?", id="misspelt"),
        pytest.param("zzzzzzzzz", "1", "POLYMODAL_ZZZZZZZZZ: no such setting", id="unknown"),
    ],
)
def test_a_problem_names_the_variable_the_value_and_what_is_allowed(bundles, name, value, problem):
    (message,) = problems(**{name: value})
    assert problem in message


def test_the_password_of_a_redis_is_not_repeated():
    (problem,) = problems(rate_limit_storage="redis+strange://:secret-password@redis.example")
    assert problem.startswith("POLYMODAL_RATE_LIMIT_STORAGE=…: an unknown storage")
    settings = Settings(rate_limit_storage="redis://:secret-password@redis.example")
    assert "secret-password" not in repr(settings)


@pytest.mark.parametrize(
    "uri",
    ["redis://redis", "redis://:p%40ss@redis.example:6379/2", "rediss://user:word@[2001:db8::1]:6380/0", "memory://"],
)
def test_a_storage_is_an_address_of_redis_or_memory(uri):
    pytest.importorskip("redis")
    assert load_settings({"POLYMODAL_RATE_LIMIT_STORAGE": uri}).rate_limit_storage == uri


def test_an_invalid_file_of_keys_is_one_problem_without_its_content(tmp_path):
    (tmp_path / "keys.json").write_text('{"keys": [{"name": "shop", "sha256": "pm_pasted"}]}')
    (problem,) = problems(api_keys_file=str(tmp_path / "keys.json"))
    assert problem.startswith(f"POLYMODAL_API_KEYS_FILE={tmp_path}/keys.json: {tmp_path}/keys.json: keys.0.sha256: ")
    assert "\n" not in problem
    assert "pm_pasted" not in problem


def test_lists_and_rates_are_read():
    settings = load_settings(
        {
            "POLYMODAL_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "POLYMODAL_CORS_ORIGINS": "https://App.example/, http://localhost:3000",
            "POLYMODAL_RATE_LIMIT_PER_ADDRESS": "100/10seconds",
        }
    )
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert settings.cors_origins == ("https://app.example", "http://localhost:3000")
    assert settings.rate_limit_per_address == Rate(100, 10)


def test_all_problems_are_reported_together(bundles):
    reported = problems(port="-1", bundles="nowhere", queue_limt="3", log_level="loud")
    assert len(reported) == 4
    assert str(SettingsError(reported)).count("\n") == 3


def example_values():
    """Return the variables of .env.example, commented ones included."""
    lines = (line.removeprefix("#") for line in (ROOT / ".env.example").read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line.startswith("POLYMODAL_"))


def test_the_example_file_lists_every_setting_with_its_sentence_in_order():
    example = (ROOT / ".env.example").read_text()
    assert list(example_values()) == [variable(field) for field in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\n#{variable(name)}=" in example


def test_the_example_file_shows_the_defaults():
    values = example_values()
    assert values.pop("POLYMODAL_BUNDLES") == Settings().bundles[0].name
    assert load_settings(values) == Settings()


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


@given(st.text(max_size=60) | st.lists(st.text(alphabet="a=,./~ \x00-", max_size=12), max_size=4).map(",".join))
@example("a=\x00")
@example("~nobody-has-this-name/x")
@example("a=" + "x/" * 3000)
def test_any_list_of_bundles_is_read_or_refused_as_a_setting(value):
    with suppress(SettingsError):
        settings = load_settings({"POLYMODAL_BUNDLES": value})
        assert len({source.name for source in settings.bundles}) == len(settings.bundles) >= 1


@pytest.mark.parametrize("name", ["bundles", "plan"])
def test_an_unknown_home_directory_is_reported(name):
    (problem,) = problems(**{name: "~nobody-has-this-name/x"})
    assert problem.startswith(f"{variable(name)}=~nobody-has-this-name/x: ")
    assert "home directory" in problem


@pytest.mark.parametrize(
    ("value", "dialects"),
    [
        ("openai", ("openai",)),
        (" OpenAI , openai", ("openai",)),
        ("tei,cohere", ("tei", "cohere")),
        ("none", ()),
        ("", ("openai", "tei", "cohere")),
    ],
)
def test_dialects_are_names_separated_by_commas_or_none(value, dialects):
    assert load_settings({"POLYMODAL_DIALECTS": value}).dialects == dialects


@pytest.mark.parametrize("value", ["open-ai", "openai,none"])
def test_an_unknown_dialect_is_refused_with_those_that_there_are(value):
    with pytest.raises(SettingsError, match="allowed: openai, tei, cohere, with commas between, or none"):
        load_settings({"POLYMODAL_DIALECTS": value})
