"""POST /v1/audio/transcriptions and /v1/audio/translations: the task transcribe as clients of OpenAI's API use it."""

import json
from typing import Any, Final, Self

from fastapi import APIRouter, Request, Response

from polymodal.app.api.body import (
    BODY_ERRORS,
    FILE,
    IGNORED_OF_AUDIO,
    JSON,
    MULTIPART,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    AudioForm,
    AudioOptions,
    ParsedRequest,
    read_audio,
)
from polymodal.app.api.context import context_of
from polymodal.app.api.dependencies import service_of, settings_of, while_connected
from polymodal.app.api.dialects import OPENAI, ignored_headers
from polymodal.app.api.examples import explained
from polymodal.app.api.routes.tasks import (
    INPUT_ERRORS,
    SERVICE_ERRORS,
    TIMEOUT_PARAMETER,
    limits_of,
    note_model,
    reference,
    timed,
    timeout_ms_of,
)
from polymodal.app.api.schemas import form_of
from polymodal.app.problems import RequestError
from polymodal.model import (
    RECORDING,
    TASKS,
    Description,
    InputError,
    NothingGiven,
    Schema,
    TranscribeOptions,
    Transcription,
    TranslateOptions,
    printable,
    subtitles,
)

TRANSCRIBE: Final = "transcribe"
_LANGUAGES: Final = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "fi": "finnish", "fr": "french", "he": "hebrew", "hi": "hindi", "hu": "hungarian", "id": "indonesian",
    "it": "italian", "ja": "japanese", "ko": "korean", "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sv": "swedish", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "zh": "chinese",
}  # fmt: skip
"""Names that OpenAI's API has for languages; others have their code."""
_DETAILS: Final = (
    "For OpenAI's clients, with their address of the API set to that of the service and /v1. Silence, tones and noise have an "
    "empty text. Problems are as everywhere, and have OpenAI's `error` in addition."
)


class DurationUsage(Schema):
    """What the request cost."""

    type: str = "duration"
    seconds: float
    """Of the recording."""


class AudioText(Schema):
    """The words of a recording; with verbose_json there are more fields, with text, srt and vtt it is no JSON."""

    text: str
    usage: DurationUsage


class UnsupportedTask(RequestError):
    """The model recognises one language, and cannot translate."""

    status = 400
    code = "unsupported_task"
    title = "The model cannot do this"

    @classmethod
    def of(cls, description: Description) -> Self:
        """Return the error for a model of one language."""
        languages = ", ".join(description.languages)
        return cls("model", f'"{description.name}", which recognises {languages} alone', "a model of several languages")

    @classmethod
    def example(cls) -> Self:
        """Return the error for an English model."""
        return cls("model", '"speech-tiny", which recognises en alone', "a model of several languages")


def router() -> APIRouter:
    """Return the routes for OpenAPI; requests are served by plain routes with the same endpoints."""
    routes = APIRouter(prefix="/v1/audio", tags=[OPENAI])
    errors: tuple[type[RequestError], ...]
    for form, endpoint, operation, summary, errors in (
        (TRANSCRIPTIONS, create_transcription, "createTranscription", "Transcribe a recording", ()),
        (TRANSLATIONS, create_translation, "createTranslation", "Translate a recording to English", (UnsupportedTask,)),
    ):
        content = {
            "schema": reference(form_of(form, "")),
            "encoding": {FILE: {"contentType": RECORDING.media_range}},
            "example": {"model": "speech", "response_format": "verbose_json"},
        }
        routes.add_api_route(
            f"/{form.name}",
            endpoint,
            methods=["POST"],
            operation_id=operation,
            summary=f"{summary}, as clients of OpenAI's API request it",
            description=_DETAILS,
            responses=explained(*BODY_ERRORS, *errors, *INPUT_ERRORS, *SERVICE_ERRORS, dialect=OPENAI),
            response_model=AudioText,
            openapi_extra={
                "parameters": [TIMEOUT_PARAMETER],
                "requestBody": {"required": True, "content": {MULTIPART: content}},
            },
        )
    return routes


async def create_transcription(request: Request) -> Response:
    """Return the words of a recording."""
    return await _answer(request, TRANSCRIPTIONS)


async def create_translation(request: Request) -> Response:
    """Return the words of a recording in English."""
    return await _answer(request, TRANSLATIONS)


async def _answer(request: Request, form: AudioForm) -> Response:
    service, settings, context = service_of(request), settings_of(request), context_of(request)
    task = TASKS[TRANSCRIBE]
    with service.admit() as admitted:
        timeout_ms = timeout_ms_of(request)
        parsed = await timed(request, read_audio(request, form, admitted, service, settings))
        options: Any = parsed.options
        with service.registry.use(parsed.model, task.name) as deployment:
            note_model(request, deployment, task)
            task_options = _options(options, form, deployment.description)
            task.check(task_options, deployment.description)
            limits = limits_of(request, deployment, timeout_ms)
            work = service.run(deployment, task, _inputs(parsed), task_options, **limits)
            try:
                answer: Any = await while_connected(request, work)
            except InputError as error:
                raise (
                    type(error)(FILE, error.found, error.allowed) if error.input == RECORDING.name else error
                ) from None
        context.modalities = answer.modalities
    ignored = [name for name in IGNORED_OF_AUDIO if getattr(options, name) is not None]
    media_type, content = _written(answer, options, form)
    return Response(content, media_type=media_type, headers=ignored_headers(ignored))


def _inputs(parsed: ParsedRequest) -> dict[str, bytes | bytearray | str]:
    if FILE not in parsed.inputs:
        raise NothingGiven(FILE, "no file", "a recording")
    return {RECORDING.name: parsed.inputs[FILE]}


def _options(options: AudioOptions, form: AudioForm, description: Description) -> TranscribeOptions:
    """Return the options of the task. Raises UnsupportedTask for a translation by a model of one language."""
    values: dict[str, Any] = {
        "language": options.language,
        "prompt": options.prompt,
        "phrases": options.keywords or None,
        "temperature": options.temperature or None,  # 0 is what OpenAI calls automatic
        "words": "word" in (options.timestamp_granularities or ()) or None,
    }
    if form is TRANSCRIPTIONS:
        return TranscribeOptions(**values)
    if len(description.languages) == 1:
        raise UnsupportedTask.of(description)
    return TranslateOptions(**values)


# --- the formats of answers ---


def _written(answer: Transcription, options: AudioOptions, form: AudioForm) -> tuple[str, str]:
    """Return media type and content of an answer."""
    usage = {"type": "duration", "seconds": answer.seconds}
    if options.stream:
        return "text/event-stream", _events(answer, usage)
    match options.response_format:
        case "text":
            return "text/plain", f"{answer.text}\n"
        case "srt":
            return "application/x-subrip", subtitles(answer.segments, "srt")
        case "vtt":
            return "text/vtt", subtitles(answer.segments, "vtt")
        case "verbose_json":
            document = _verbose(answer, options, form)
        case _:
            document = {"text": answer.text}
    return JSON, json.dumps({**document, "usage": usage}, ensure_ascii=False)


def _verbose(answer: Transcription, options: AudioOptions, form: AudioForm) -> dict[str, Any]:
    transcript = answer.transcript
    language = transcript.language
    words = [
        {"word": word.text, "start": word.start, "end": word.end}
        for segment in answer.segments
        for word in segment.words or ()
    ]
    return {
        "task": "translate" if form is TRANSLATIONS else "transcribe",
        "language": _LANGUAGES.get(language, language),
        "duration": answer.seconds,
        "text": answer.text,
        "segments": [
            {
                "id": number,
                "seek": round(segment.start * 100),
                "start": segment.start,
                "end": segment.end,
                "text": printable(segment.text),
                "tokens": list(segment.tokens),
                "temperature": segment.temperature,
                "avg_logprob": segment.avg_logprob,
                "compression_ratio": segment.compression_ratio,
                "no_speech_prob": segment.no_speech_prob,
            }
            for number, segment in enumerate(transcript.segments)
        ],
        **({"words": words} if "word" in (options.timestamp_granularities or ()) else {}),
        "speech_seconds": answer.speech_seconds,
        "silence_seconds": answer.silence_seconds,
        "warnings": answer.warnings,
    }


def _events(answer: Transcription, usage: dict[str, Any]) -> str:
    """Return server-sent events: one for each segment, one with the whole text, and the end."""
    deltas = [f"{' ' * bool(number)}{segment.text}" for number, segment in enumerate(answer.segments)]
    events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": delta} for delta in deltas]
    events.append({"type": "transcript.text.done", "text": answer.text, "usage": usage})
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"])
