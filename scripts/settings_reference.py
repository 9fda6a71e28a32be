"""Write the table of settings in docs/operations.md, between two markers, from app/settings.py: `make settings`.

The meaning of a setting is its docstring in Settings; .env.example and this table repeat it, and tests compare them.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from polymodal.app.settings import KIB, MIB, Settings, limit_of, variable
from polymodal.model import MODALITIES

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
BEGIN = "<!-- settings: made by make settings -->"
END = "<!-- end of settings -->"

GROUPS = {
    "Where it listens": ("host", "port", "admin_host", "admin_port", "docs"),
    "What it serves": ("bundles", "indexes", "runtime", "dialects"),
    "Processors and batches": (
        "plan",
        "workers",
        "inference_threads",
        "max_batch_items",
        "max_batch_ms",
        "embedding_cache_bytes",
    ),
    "Load and deadlines": (
        "queue_limit",
        "max_batch_request_items",
        "request_timeout_ms",
        "stall_timeout_ms",
        "drain_timeout_s",
    ),
    "What a request may weigh": (
        *(limit_of(modality) for modality in MODALITIES),
        "max_body_bytes",
        "max_inflight_bytes",
        "body_timeout_ms",
    ),
    "Connections": ("max_connections", "max_head_bytes", "head_timeout_ms", "keep_alive_s"),
    "Who may come in": (
        "api_keys_file",
        "require_api_keys",
        "rate_limit_per_key",
        "rate_limit_per_address",
        "rate_limit_storage",
        "trusted_proxies",
        "cors_origins",
    ),
}
REST = "Log and telemetry"
"""Heading of the settings that are in no group."""

UNITS = {"_ms": "ms", "_s": "s", "_bytes": "bytes"}
DERIVED = {
    "bundles": "`illustrations`",
    "workers": "one for each core, at most 8",
    "inference_threads": "cores ÷ workers",
}
DERIVED |= {"max_batch_items": "16, or as the plan says"}
"""Defaults that Settings computes; a test checks that these are all."""


def main() -> None:
    """Replace the table between the markers."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, table()), encoding="utf-8")


def replaced(page: str, section: str) -> str:
    """Return the page with another section between the markers. Ends the process when a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{PAGE}: the line {BEGIN if not begin else END} is missing")
    return f"{before}{BEGIN}\n\n{section}\n{END}{after}"


def table() -> str:
    """Return a table for each group, in Markdown."""
    return "".join(_table(heading, names) for heading, names in grouped().items())


def grouped() -> dict[str, list[str]]:
    """Return the names of all fields by heading; a new field is in the last group until another group has it."""
    in_groups = {name for names in GROUPS.values() for name in names}
    groups = {heading: [name for name in names if name in Settings.model_fields] for heading, names in GROUPS.items()}
    return groups | {REST: [name for name in Settings.model_fields if name not in in_groups]}


def _table(heading: str, names: list[str]) -> str:
    rows = [
        " | ".join(
            ("", f"`{variable(name)}`", default(name), bounds(field), unit(name), _cell(str(field.description)), "")
        )
        for name in names
        for field in (Settings.model_fields[name],)
    ]
    body = "\n".join(row.strip() for row in rows)
    return f"### {heading}\n\n| variable | default | bound | unit | |\n|---|---|---|---|---|\n{body}\n\n"


def default(name: str) -> str:
    """Return the default as an operator would write it."""
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return DERIVED[name]
    value = field.default
    if value is None or value in ((), ""):
        return "not set"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and unit(name) == "bytes" and value:
        size, size_unit = (value // MIB, "MiB") if value % MIB == 0 else (value // KIB, "KiB")
        return f"`{value}` ({size} {size_unit})"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def bounds(field: FieldInfo) -> str:
    """Return the allowed values: choices, or a range of numbers; empty where only the description has them."""
    if choices := _choices(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    low = high = ""
    for bound in field.metadata:
        match bound:
            case Ge(ge):
                low = low or f"{ge:,}"
            case Gt(gt):
                low = f"more than {gt:,}"
            case Le(le):
                high = high or f"{le:,}"
            case Lt(lt):
                high = f"less than {lt:,}"
    if low or high:
        return f"{low} … {high}".strip() if high else f"from {low}" if low[0].isdigit() else low
    return "not empty" if any(isinstance(bound, MinLen) for bound in field.metadata) else ""


def _choices(annotation: Any) -> Iterator[str] | tuple[str, ...]:  # noqa: ANN401 — any annotation
    if annotation is bool:
        return ("true", "false")
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    options = [option for option in get_args(annotation) if option is not NoneType]
    return _choices(options[0]) if len(options) == 1 and get_origin(options[0]) is Literal else ()


def unit(name: str) -> str:
    """Return the unit, which is the end of the name."""
    return next((word for ending, word in UNITS.items() if name.endswith(ending)), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
