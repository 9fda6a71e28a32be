"""A modality of files that holds eight samples of a tone, one byte each."""

from polymodal.model.modalities import Modality

TONE = Modality(
    name="tone",
    noun="a tone",
    common_noun="beep",
    textual=False,
    max_bytes=64,
    media_range="audio/*",
    package=__name__,
    encoders="loud",
    augmentation="samples changed",
    suffixes=frozenset({".tone"}),
    usual_columns=("pitch",),
)
