"""The model kind speech, with a scripted recogniser."""

from itertools import pairwise

import numpy as np
import pytest

from polymodal.model import BundleError, InputError, load_bundle
from polymodal.model.kinds.speech import windows_of
from polymodal.model.modalities.audio.spectrum import RATE
from polymodal.model.speech.recogniser import Guidance
from polymodal.model.speech.transcript import TRANSCRIPT, transcript_of
from tests.speech_models import GOLDEN, Script, pause, scripted, tone, wav, write_speech


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "speech")


def transcribe(bundle, *pieces, recogniser=None, **options):
    model = scripted(bundle, recogniser)
    return model.transcribe(model.prepare({"audio": wav(*pieces)}), **options)


def test_a_recording_is_transcribed_with_times_of_its_speech(bundle):
    transcript = transcribe(bundle, pause(1), tone(2), pause(1))
    (segment,) = transcript.segments
    assert (transcript.text, segment.start, segment.end) == ("one", 1.0, 3.0)
    assert (transcript.seconds, transcript.speech_seconds, transcript.language) == (4.0, 2.0, "en")
    assert transcript.reason == ""


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        pytest.param(pause(3), "silence", id="silence"),
        pytest.param(tone(3, amplitude=0.0005), "silence", id="too-low-to-hear"),
        pytest.param(tone(3, amplitude=0.2), "no_speech", id="tone"),
    ],
)
def test_sound_without_speech_has_no_words_and_a_reason(bundle, sound, reason):
    recogniser = Script()
    transcript = transcribe(bundle, sound, recogniser=recogniser)
    assert (transcript.text, transcript.segments, transcript.reason) == ("", (), reason)
    assert (transcript.seconds, transcript.speech_seconds) == (3.0, 0.0)
    assert not recogniser.calls


def test_a_long_pause_separates_windows_whose_times_count_from_the_start_of_the_recording(bundle):
    recogniser = Script()
    transcript = transcribe(bundle, tone(1), pause(5), tone(1), recogniser=recogniser, guidance=Guidance(words=True))
    assert transcript.text == "one two"
    assert [(segment.start, segment.end) for segment in transcript.segments] == [(0.0, 1.0), (6.0, 7.0)]
    assert transcript.segments[1].words[0].start == 6.0
    assert [round(seconds, 1) for seconds, _ in recogniser.calls] == [1.4, 1.4]


def test_the_language_of_the_first_window_is_that_of_the_others(bundle):
    recogniser = Script()
    transcribe(bundle, tone(1), pause(5), tone(1), recogniser=recogniser)
    assert [guidance.language for _, guidance in recogniser.calls] == [None, "en"]


def test_windows_hold_neighbours_do_not_overlap_and_are_bounded():
    second = RATE
    speech = [(0, 10 * second), (11 * second, 20 * second), (21 * second, 40 * second), (50 * second, 51 * second)]
    windows = list(windows_of(speech, 60 * second, 28.0))
    assert [window.speech for window in windows] == [
        (0, 20 * second),
        (21 * second, 40 * second),
        (50 * second, 51 * second),
    ]
    assert all(first.end <= second.start for first, second in pairwise(windows))
    assert all(window.end - window.start <= 28 * second for window in windows)


def test_a_repetitive_result_is_reported(bundle):
    recogniser = Script()
    recogniser.repetitive = True
    assert transcribe(bundle, tone(1), recogniser=recogniser).warnings == ("repetition",)


def test_candidates_have_probabilities_that_sum_to_one_and_the_best_is_the_text(bundle):
    transcript = transcribe(bundle, tone(1), candidates=["two", "one", "three"])
    assert transcript.text == "one"
    assert sum(transcript.probabilities) == pytest.approx(1, abs=1e-5)
    assert np.argmax(transcript.probabilities) == 1


def test_without_speech_no_candidate_is_chosen(bundle):
    transcript = transcribe(bundle, pause(1), candidates=["one", "two"])
    assert (transcript.text, transcript.probabilities, transcript.reason) == ("", (), "silence")


def test_candidates_are_compared_with_the_first_window_alone(bundle):
    assert transcribe(bundle, tone(1), pause(5), tone(1), candidates=["one", "two"]).warnings == ("cut",)


def test_a_transcript_crosses_the_wire_unchanged(bundle):
    transcript = transcribe(bundle, tone(1), guidance=Guidance(words=True))
    assert transcript_of(transcript.arrays()) == transcript


@pytest.mark.parametrize(
    "content",
    [b"no json", b'{"segments": [], "seconds": -1, "speech_seconds": 0}', b"[]"],
    ids=["text", "time", "list"],
)
def test_a_transcript_that_is_none_is_rejected(content):
    with pytest.raises(ValueError, match=r"."):
        transcript_of({TRANSCRIPT: np.frombuffer(content, np.uint8)})


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        pytest.param({}, "request: no audio; allowed: audio", id="nothing"),
        pytest.param({"text": "words"}, "text: not an input of this model; allowed: audio", id="text"),
        pytest.param({"audio": b"words"}, "audio: a text; allowed: audio/wav, ", id="no-sound"),
    ],
)
def test_unusable_inputs_are_explained(bundle, inputs, problem):
    with pytest.raises(InputError) as error:
        scripted(bundle).prepare(inputs)
    assert str(error.value).startswith(problem)


def test_golden_clips_are_replayed(bundle):
    scripted(bundle).warm_up()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"transcript": "two"}, "is recognised as 'one'; the bundle recorded 'two'", id="text"),
        pytest.param({"avg_logprob": -3.0}, "2.90 away", id="logprob"),
        pytest.param({"avg_logprob": "high"}, "cannot be replayed", id="no-number"),
        pytest.param({"parts": {"audio": "AAAA"}}, "cannot be replayed: audio: bytes of no known", id="clip"),
    ],
)
def test_a_golden_clip_that_is_recognised_otherwise_refuses_the_bundle(tmp_path, changes, problem):
    folder = write_speech(tmp_path / "speech", [{**GOLDEN, **changes}])
    with pytest.raises(BundleError, match="golden clip 1") as error:
        scripted(folder).warm_up()
    assert problem in str(error.value)


def test_an_altered_recogniser_file_refuses_the_bundle(tmp_path):
    folder = write_speech(tmp_path / "speech")
    (folder / "whisper/model.bin").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"whisper/model.bin was altered"):
        load_bundle(folder)


def test_a_bundle_without_its_weights_is_refused(tmp_path):
    folder = write_speech(tmp_path / "speech")
    sums = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in sums if "model.bin" not in line))
    with pytest.raises(BundleError, match=r"whisper/model.bin is missing from SHA256SUMS"):
        load_bundle(folder)


def test_a_transcript_ends_at_the_window_before_which_it_is_stopped(bundle):
    recogniser = Script()
    answers = iter([False, True])
    sound = (tone(1), pause(5), tone(1), pause(5), tone(1))
    transcript = transcribe(bundle, *sound, recogniser=recogniser, stopped=lambda: next(answers))
    assert transcript.text == "one"
    assert len(recogniser.calls) == 1
