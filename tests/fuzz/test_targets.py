"""Run every seed and every former crash through its fuzz target."""

import pytest

from tests.fuzz.run import CORPUS, SHARES
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_former_crashes_are_processed(name):
    if name == "audio":
        pytest.importorskip("av", reason="PyAV is of the extra audio")
    crashes = sorted((CORPUS / name).iterdir()) if (CORPUS / name).is_dir() else []
    inputs = [b"", *seeds(name), *(file.read_bytes() for file in crashes)]
    assert len(inputs) > 4
    for content in inputs:
        TARGETS[name](content)


def test_every_target_has_a_share_of_the_time():
    assert set(SHARES) == set(TARGETS)


def test_the_corpus_stays_small():
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 100_000
