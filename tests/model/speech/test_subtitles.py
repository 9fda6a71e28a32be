"""Files of subtitles."""

from polymodal.model.speech.recogniser import Segment
from polymodal.model.speech.subtitles import subtitles

CUES = [Segment("one", 0.5, 1.25, -0.1, 0.0), Segment("a < b & c --> d", 3599.9996, 3661.0, -0.1, 0.0)]


def test_srt_has_numbers_and_commas():
    assert subtitles(CUES, "srt") == (
        "1\n00:00:00,500 --> 00:00:01,250\none\n\n2\n01:00:00,000 --> 01:01:01,000\na < b & c --> d\n\n"
    )


def test_vtt_has_a_head_and_escapes():
    assert subtitles(CUES, "vtt") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.250\none\n\n01:00:00.000 --> 01:01:01.000\na &lt; b &amp; c --&gt; d\n\n"
    )


def test_an_empty_transcript_has_no_cues():
    assert (subtitles([], "srt"), subtitles([], "vtt")) == ("", "WEBVTT\n\n")
