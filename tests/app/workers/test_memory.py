"""Memory that a worker has freed goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

from polymodal.app.workers.memory import Trimmer

HOLES = """
import psutil
from polymodal.app.workers.memory import Trimmer

def resident_mib():
    return psutil.Process().memory_info().rss / 2**20

blocks = [bytearray(4096) for _ in range(20_000)]  # each from malloc, as Python's own pools end at 512 bytes
last = blocks[-1]  # keeps the heap from shrinking at its end
del blocks
before = resident_mib()
Trimmer(every_s=0).trim()
print(before - resident_mib())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="a C library without malloc_trim")
def test_a_trim_returns_memory_between_blocks_in_use():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50  # of 80 MiB that were freed


def test_memory_is_trimmed_at_most_once_in_an_interval(monkeypatch):
    now, trims = [0.0], []
    trimmer = Trimmer(every_s=10, clock=lambda: now[0])
    monkeypatch.setattr(trimmer, "_malloc_trim", trims.append)
    for second in range(25):
        now[0] = float(second)
        trimmer.trim()
    assert len(trims) == 2


def test_a_c_library_without_malloc_trim_is_no_error(monkeypatch):
    trimmer = Trimmer(every_s=0)
    monkeypatch.setattr(trimmer, "_malloc_trim", None)
    trimmer.trim()
