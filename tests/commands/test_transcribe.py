"""`polymodal transcribe`, with a scripted recogniser."""

import json

import pytest

from polymodal.model import kinds
from tests.command_line import assert_explained, polymodal
from tests.speech_models import pause, scripted, tone, wav, write_speech


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "speech", lambda path, name, runtime, threads: scripted(path, name=name))
    write_speech(tmp_path / "bundle", golden=())
    (tmp_path / "a.wav").write_bytes(wav(pause(1), tone(2)))
    (tmp_path / "b.wav").write_bytes(wav(tone(1)))
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    return tmp_path


def transcribe(folder, *arguments):
    return polymodal("transcribe", "--bundle", folder / "bundle", *arguments)


def test_the_words_of_one_file_are_printed(folder):
    result = transcribe(folder, folder / "a.wav")
    assert (result.exit_code, result.stdout) == (0, "one\n")


def test_the_words_of_several_files_have_their_names(folder):
    result = transcribe(folder, folder / "a.wav", folder / "b.wav")
    assert result.stdout.splitlines() == [f"{folder / 'a.wav'}: one", f"{folder / 'b.wav'}: two"]


def test_json_is_the_answer_of_the_service(folder):
    options = ("--format", "json", "--candidate", "one", "--candidate", "two", "--language", "de")
    answer = json.loads(transcribe(folder, folder / "a.wav", *options).stdout)
    assert (answer["text"], answer["seconds"], answer["candidates"][0]["text"]) == ("one", 3.0, "one")


def test_subtitles_are_written_next_to_each_other(folder):
    result = transcribe(folder, folder / "a.wav", folder / "b.wav", "--format", "vtt", "--out", folder / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert (folder / "out/a.vtt").read_text() == "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\none\n"
    assert (folder / "out/b.vtt").exists()


def test_a_bad_file_is_reported_and_the_others_are_transcribed(folder):
    result = transcribe(folder, folder / "bad.wav", folder / "missing.wav", folder / "a.wav")
    assert result.exit_code == 1
    assert f"{folder / 'bad.wav'}: audio: " in result.stderr
    assert f"{folder / 'missing.wav'}: No such file or directory" in result.stderr
    assert result.stdout == f"{folder / 'a.wav'}: one\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--language", "xx"), ("language", "allowed: de, en")), (("--candidate", "a", "--candidate", "a"), ("twice",))],
)
def test_options_that_cannot_be_are_explained(folder, options, words):
    assert_explained(transcribe(folder, folder / "a.wav", *options), *words)


def test_an_unknown_format_is_wrong_usage(folder):
    assert transcribe(folder, folder / "a.wav", "--format", "pdf").exit_code == 2


def test_two_files_of_one_name_are_not_written_over_each_other(folder):
    (folder / "more").mkdir()
    result = transcribe(folder, folder / "a.wav", folder / "more/a.wav", "--out", folder / "out")
    assert result.exit_code == 2


def test_a_bundle_of_another_kind_is_explained(folder, tiny_bundle):
    result = polymodal("transcribe", "--bundle", tiny_bundle, folder / "a.wav")
    assert_explained(result, "a model of kind network", "polymodal fetch speech")
