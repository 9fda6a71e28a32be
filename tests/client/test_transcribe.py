"""The call transcribe."""

import httpx
import pytest

from polymodal_client import TranscribedSegment, TranscribedWord, UnexpectedAnswer

ANSWER = {
    "model": "speech",
    "digest": "ab",
    "modalities": ["audio"],
    "text": "yes",
    "language": "en",
    "language_probability": 0.9,
    "segments": [
        {
            "text": "yes",
            "start": 0.2,
            "end": 0.6,
            "confidence": 0.97,
            "words": [{"text": "yes", "start": 0.2, "end": 0.6, "confidence": 0.9}],
        }
    ],
    "seconds": 1,
    "speech_seconds": 0.4,
    "silence_seconds": 0.6,
    "candidates": [{"text": "yes", "probability": 0.97}, {"text": "no", "probability": 0.03}],
    "warnings": ["antiphase"],
}


def test_a_transcription_is_read(both, scripted):
    answer = both.call(scripted(httpx.Response(200, json=ANSWER)), "transcribe", b"sound")
    word = TranscribedWord("yes", 0.2, 0.6, 0.9)
    assert answer.segments == (TranscribedSegment("yes", 0.2, 0.6, 0.97, (word,)),)
    assert (answer.text, answer.language, answer.seconds, answer.speech_seconds) == ("yes", "en", 1.0, 0.4)
    assert list(answer.candidates.items()) == [("yes", 0.97), ("no", 0.03)]
    assert (answer.warnings, answer.reason) == (("antiphase",), None)


def test_silence_has_a_reason(both, scripted):
    silent = {**ANSWER, "text": "", "segments": [], "reason": "silence"}
    for name in ("language", "language_probability", "candidates"):
        del silent[name]
    answer = both.call(scripted(httpx.Response(200, json=silent)), "transcribe", b"sound")
    assert (answer.text, answer.reason, answer.candidates, answer.language) == ("", "silence", None, None)


def test_options_and_a_path_are_sent_as_a_form(both, scripted, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"content of the file")
    service = scripted(httpx.Response(200, json=ANSWER))
    options = {"language": "en", "phrases": ["Ada"], "candidates": ["yes", "no"], "words": True, "temperature": 0.5}
    both.call(service, "transcribe", str(tmp_path / "a.wav"), **options)
    body = service.seen[0].content
    assert b"content of the file" in body
    for field in (b'["Ada"]', b'["yes", "no"]', b"true", b"0.5", b'name="language"'):
        assert field in body


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 1}, "words: int; allowed: True or False"),
        ({"candidates": "yes"}, "candidates: str; allowed: an iterable of at least one text"),
        ({"language": 5}, "language: int; allowed: a code such as en"),
    ],
)
def test_options_of_another_type_are_rejected(both, scripted, options, message):
    with pytest.raises(TypeError, match=message):
        both.call(scripted(httpx.Response(200, json=ANSWER)), "transcribe", b"sound", **options)


def test_another_answer_is_not_read_as_a_transcription(both, scripted):
    with pytest.raises(UnexpectedAnswer):
        both.call(scripted(httpx.Response(200, json={**ANSWER, "segments": None})), "transcribe", b"sound")
