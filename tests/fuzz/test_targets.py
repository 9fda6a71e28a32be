"""Every seed, and everything that once crashed, goes through its fuzz target as fuzzing would send it."""

from pathlib import Path

import pytest

from tests.fuzz.run import NAMES
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_begins_with_and_what_it_found_is_answered(name):
    found = sorted((CORPUS / name).iterdir()) if (CORPUS / name).is_dir() else []
    inputs = [b"", *seeds(name), *(file.read_bytes() for file in found)]
    assert len(inputs) > 4
    for content in inputs:
        TARGETS[name](content)


def test_every_target_gets_time():
    assert set(NAMES) == set(TARGETS)


def test_the_corpus_stays_small():
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 100_000
