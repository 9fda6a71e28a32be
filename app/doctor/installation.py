"""Python, the packages that serving and training need with their versions, and the settings."""

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from app.doctor.finding import Finding, fail, ok, warn
from app.settings import Settings, SettingsError, load_settings

OLDEST_PYTHON: Final = (3, 11)
ONLY_TRAINING: Final = "torch"
"""A dependency that serving with ONNX Runtime does without."""
_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(\[[^]]*\])?\s*(>=(?P<oldest>[0-9.]+))?[^;]*(;(?P<marker>.*))?")
_EXTRA: Final = re.compile(r"extra == ['\"](?P<extra>[\w-]+)['\"]")


def look() -> Iterator[Finding]:
    """At Python and at packages."""
    running = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield ok("installation", "Python", f"{running}, {sys.executable}")
    else:
        yield fail("installation", "Python", running, "install Python 3.11 or newer, and polymodal into it")
    try:
        present, requirements = version("polymodal"), requires("polymodal") or []
    except PackageNotFoundError:
        yield fail("installation", "polymodal", "not installed, but run from its folder", "pip install --editable .")
        return
    yield ok("installation", "polymodal", present)
    yield from _packages(requirements)


def _packages(requirements: list[str]) -> Iterator[Finding]:
    serving, training = [], []
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if not found or ("win32" in (marker := found["marker"] or "") and sys.platform == "win32"):
            continue
        extra = _EXTRA.search(marker)
        if extra is None and found["name"] != ONLY_TRAINING:
            serving.append((found["name"], found["oldest"]))
        elif extra is None or extra["extra"] == "train":
            training.append((found["name"], found["oldest"]))
    lacking = [told for name, oldest in serving if (told := _lack(name, oldest))]
    if lacking:
        yield fail("installation", "serving", ", ".join(lacking), "make setup, or pip install --upgrade polymodal")
    else:
        yield ok("installation", "serving", _versions("onnxruntime", "fastapi", "uvicorn", "numpy", "pillow"))
    lacking = [told for name, oldest in training if (told := _lack(name, oldest))]
    if lacking:
        yield warn(
            "installation",
            "training",
            ", ".join(lacking),
            "only to train and to export: make setup, or pip install 'polymodal[train]'",
        )
    else:
        yield ok("installation", "training", _versions(ONLY_TRAINING, "accelerate", "onnx", "scikit-learn"))


def _lack(name: str, oldest: str | None) -> str:
    """What is wrong with a package; nothing when it is there and new enough."""
    try:
        present = version(name)
    except PackageNotFoundError:
        return f"{name} is missing"
    if oldest and _numbers(present) < _numbers(oldest):
        return f"{name} is {present}, older than {oldest}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version, to be compared: 2.13.0+cpu is (2, 13, 0)."""
    release = re.match(r"[0-9]+(\.[0-9]+)*", text)
    return tuple(map(int, release[0].split("."))) if release else ()


def _versions(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """The settings, or the defaults where they are wrong, with every problem and unknown variable."""
    try:
        settings = load_settings(environ)
    except SettingsError as error:
        advice = "see .env.example for what is allowed; until then the defaults are looked at"
        return load_settings({}), [fail("settings", *_told(problem), advice) for problem in error.problems]
    set_ = sorted(name for name, value in environ.items() if name.upper().startswith("POLYMODAL_") and value)
    return settings, [ok("settings", "environment", ", ".join(set_) or "all at their defaults")]


def _told(problem: str) -> tuple[str, str]:
    name = re.match(r"[A-Za-z_]+", problem)
    return (name[0] if name else "environment"), problem
