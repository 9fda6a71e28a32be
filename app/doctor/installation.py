"""Python, the packages that serving and training need with their versions, and the settings."""

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from polymodal.app.doctor.result import CheckResult, fail, ok, warn
from polymodal.app.settings import Settings, SettingsError, load_settings
from polymodal.model import MODALITIES

OLDEST_PYTHON: Final = (3, 11)
TRAINING_ONLY: Final = "torch"
"""A dependency that serving with ONNX Runtime does not need."""
_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(\[[^]]*\])?\s*(>=(?P<oldest>[0-9.]+))?[^;]*(;(?P<marker>.*))?")
_EXTRA: Final = re.compile(r"extra == ['\"](?P<extra>[\w-]+)['\"]")


def check() -> Iterator[CheckResult]:
    """Check Python and the packages."""
    running = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield ok("installation", "Python", f"{running}, {sys.executable}")
    else:
        yield fail("installation", "Python", running, "install Python 3.11 or newer, and polymodal into it")
    try:
        installed, requirements = version("polymodal"), requires("polymodal") or []
    except PackageNotFoundError:
        yield fail("installation", "polymodal", "not installed, but run from its folder", "pip install --editable .")
        return
    yield ok("installation", "polymodal", installed)
    yield from _packages(requirements)


def _packages(requirements: list[str]) -> Iterator[CheckResult]:
    serving: list[tuple[str, str | None]] = []
    training: list[tuple[str, str | None]] = []
    decoders: dict[str, list[tuple[str, str | None]]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if not match or ("win32" in (marker := match["marker"] or "") and sys.platform == "win32"):
            continue
        extra = _EXTRA.search(marker)
        if extra is None and match["name"] != TRAINING_ONLY:
            serving.append((match["name"], match["oldest"]))
        elif extra is None or extra["extra"] == "train":
            training.append((match["name"], match["oldest"]))
        else:
            decoders.setdefault(extra["extra"], []).append((match["name"], match["oldest"]))
    if problems := _problems(serving):
        yield fail("installation", "serving", ", ".join(problems), "make setup, or pip install --upgrade polymodal")
    else:
        yield ok("installation", "serving", _versions("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"))
    if problems := _problems(training):
        yield warn(
            "installation",
            "training",
            ", ".join(problems),
            "only to train and to export: make setup, or pip install 'polymodal[train]'",
        )
    else:
        yield ok("installation", "training", _versions(TRAINING_ONLY, "accelerate", "onnx", "scikit-learn"))
    for modality in MODALITIES.values():
        if packages := decoders.get(modality.extra):
            lacking = ", ".join(_problems(packages))
            needed = f"{lacking}: only for models that take it, pip install 'polymodal[{modality.extra}]'"
            yield ok("installation", modality.name, needed if lacking else _versions(*(name for name, _ in packages)))


def _problems(packages: list[tuple[str, str | None]]) -> list[str]:
    return [problem for name, oldest in packages if (problem := _problem(name, oldest))]


def _problem(name: str, oldest: str | None) -> str:
    """Return the problem of a package; empty when it is installed and new enough."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        return f"{name} is missing"
    if oldest and _numbers(installed) < _numbers(oldest):
        return f"{name} is {installed}, older than {oldest}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    """Return the release of a version for comparisons: (2, 13, 0) for 2.13.0+cpu."""
    release = re.match(r"[0-9]+(\.[0-9]+)*", text)
    return tuple(map(int, release[0].split("."))) if release else ()


def _versions(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[CheckResult]]:
    """Return the settings, or the defaults if they are invalid, with a result for every problem."""
    try:
        settings = load_settings(environ)
    except SettingsError as error:
        advice = "see .env.example for what is allowed; the other checks use the defaults"
        return load_settings({}), [fail("settings", _variable(line), line, advice) for line in error.problems]
    names = sorted(name for name, value in environ.items() if name.upper().startswith("POLYMODAL_") and value)
    return settings, [ok("settings", "environment", ", ".join(names) or "all at their defaults")]


def _variable(problem: str) -> str:
    name = re.match(r"[A-Za-z_]+", problem)
    return name[0] if name else "environment"
