import pytest

from polymodal.app.settings import Settings, variable
from scripts import settings_reference as reference


def test_the_page_has_the_generated_table():
    page = reference.PAGE.read_text(encoding="utf-8")
    assert page == reference.replaced(page, reference.table()), "run `make settings`"


def test_every_setting_has_one_heading():
    names = [name for group in reference.grouped().values() for name in group]
    assert sorted(names) == sorted(Settings.model_fields)


def test_every_setting_is_in_the_table_with_its_sentence():
    table = reference.table()
    for name, field in Settings.model_fields.items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{variable(name)}` |")]
        assert str(field.description).replace("|", "\\|") in row


def test_every_computed_default_is_explained():
    assert {name for name, field in Settings.model_fields.items() if field.default_factory} == set(reference.DERIVED)


@pytest.mark.parametrize(
    ("name", "default", "bound", "unit"),
    [
        pytest.param("port", "`8000`", "0 … 65,535", "", id="both-bounds"),
        pytest.param("max_body_bytes", "`20971520` (20 MiB)", "more than 0", "bytes", id="bytes"),
        pytest.param("drain_timeout_s", "`20`", "0 … 3,600", "s", id="seconds"),
        pytest.param("max_batch_ms", "`250`", "more than 0 … 600,000", "ms", id="milliseconds"),
        pytest.param("admin_port", "not set", "0 … 65,535", "", id="not-set"),
        pytest.param("log_format", "`auto`", "`auto`, `json`, `console`", "", id="choice"),
        pytest.param("docs", "`true`", "`true`, `false`", "", id="switch"),
        pytest.param("embedding_cache_bytes", "`0`", "from 0", "bytes", id="only-from"),
        pytest.param("cors_origins", "not set", "", "", id="a-list"),
        pytest.param("host", "`127.0.0.1`", "not empty", "", id="a-word"),
    ],
)
def test_a_row_has_default_bounds_and_unit(name, default, bound, unit):
    field = Settings.model_fields[name]
    assert (reference.default(name), reference.bounds(field), reference.unit(name)) == (default, bound, unit)


def test_only_the_text_between_the_markers_is_replaced():
    page = f"before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n"
    assert reference.replaced(page, "new") == f"before\n{reference.BEGIN}\n\nnew\n{reference.END}\nafter\n"


@pytest.mark.parametrize(
    "page", [f"{reference.BEGIN}\n", f"{reference.END}\n", ""], ids=["no-end", "no-begin", "neither"]
)
def test_a_page_without_markers_is_an_error(page):
    with pytest.raises(SystemExit, match="is missing"):
        reference.replaced(page, "new")
