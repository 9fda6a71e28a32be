"""Subtitles of a transcript: SubRip (srt) and WebVTT (vtt)."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

FORMATS: Final = ("srt", "vtt")


class Cue(Protocol):
    """A text and its times, in seconds."""

    @property
    def text(self) -> str:
        """Return the text."""

    @property
    def start(self) -> float:
        """Return the start."""

    @property
    def end(self) -> float:
        """Return the end."""


def subtitles(cues: Iterable[Cue], form: str) -> str:
    """Return the content of a file of subtitles; `form` is one of FORMATS."""
    return "".join(_vtt(cues) if form == "vtt" else _srt(cues))


def _srt(cues: Iterable[Cue]) -> Iterator[str]:
    for number, cue in enumerate(cues, start=1):
        yield f"{number}\n{_times(cue, ',')}\n{cue.text}\n\n"


def _vtt(cues: Iterable[Cue]) -> Iterator[str]:
    yield "WEBVTT\n\n"
    for cue in cues:
        text = (
            cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        )  # https://www.w3.org/TR/webvtt1/
        yield f"{_times(cue, '.')}\n{text}\n\n"


def _times(cue: Cue, point: str) -> str:
    return f"{_time(cue.start, point)} --> {_time(cue.end, point)}"


def _time(seconds: float, point: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"
