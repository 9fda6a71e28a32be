"""`polymodal transcribe`: the words of recordings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from polymodal.app.commands.bundles import open_model
from polymodal.app.commands.command import FAILED, AsJson, command, report, show

if TYPE_CHECKING:
    from polymodal.model import Transcription

FORMATS: Final = ("txt", "json", "srt", "vtt")
"""Formats, which are also the suffixes of the files that are written."""

commands = typer.Typer()


@command(
    commands,
    "polymodal transcribe note.m4a",
    "polymodal transcribe interviews/*.mp3 --format srt --out subtitles --language en --phrase 'Ada Lovelace'",
    "polymodal transcribe answer.wav --candidate yes --candidate no --format json",
)
def transcribe(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Recordings.", show_default=False)],
    bundle: Annotated[
        str, typer.Option(help="Folder of a speech bundle, made by `polymodal fetch speech`.")
    ] = "bundles/speech",
    form: Annotated[str, typer.Option("--format", help="txt, json, srt or vtt.")] = "txt",
    out: Annotated[Path | None, typer.Option(help="Folder for one file for each recording.", file_okay=False)] = None,
    language: Annotated[str | None, typer.Option(help="Code such as en; by default it is detected.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the recordings are about.")] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(help="Words or a name that may occur; several by giving it again.")
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="A text that a recording may be, at least two; the answer is one of them.")
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Times of each word, with --format json.")] = False,
    as_json: AsJson = False,
) -> None:
    """Transcribe recordings: print their words, or write a file for each.

    With --json, or --format json, it prints the response of POST /v1/transcribe.
    """
    from polymodal.model import RECORDING, TASKS, InputError, ModelError, answer_one

    form = "json" if as_json else form
    if form not in FORMATS:
        raise typer.BadParameter(f"--format {form!r}; allowed: {', '.join(FORMATS)}")
    values = {
        "language": language,
        "prompt": prompt,
        "phrases": phrase,
        "candidates": candidate,
        "words": words or None,
    }
    task = TASKS["transcribe"]
    options = task.Options.model_validate({name: value for name, value in values.items() if value})
    targets = _targets(files, out, form)
    model = open_model(bundle)
    if task.needs not in model.description.capabilities:
        raise ModelError(
            f"{bundle}: a model of kind {model.description.kind}; allowed: a bundle of `polymodal fetch speech`"
        )
    task.check(options, model.description)
    failed = 0
    for file, target in zip(files, targets, strict=True):
        try:
            answer = answer_one(model, task, {RECORDING.name: file.read_bytes()}, options)
        except (OSError, InputError) as problem:
            failed += 1
            report(f"polymodal: {file}: {getattr(problem, 'strerror', None) or problem}")
            continue
        content = _content(answer, form).rstrip("\n")  # type: ignore[arg-type]  # the answer of this task
        if target is None:
            show(f"{file}: {content}" if form == "txt" and len(files) > 1 else content)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f"{content}\n", encoding="utf-8")
            report(f"{target}")
    if failed:
        raise typer.Exit(FAILED)


def _targets(files: list[Path], out: Path | None, form: str) -> list[Path | None]:
    """Return the file to write for each recording; None to print it. Raises BadParameter for two of the same name."""
    if out is None:
        return [None] * len(files)
    targets = [out / file.with_suffix(f".{form}").name for file in files]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise typer.BadParameter(f"{files[number]} and another file would both be written to {target}")
    return list(targets)


def _content(answer: "Transcription", form: str) -> str:
    from polymodal.model import subtitles

    match form:
        case "txt":
            return answer.text
        case "json":
            return answer.model_dump_json(exclude_none=True)
    return subtitles(answer.segments, form)
