"""What processes take of the machine."""

import os
import subprocess
import sys

import pytest

from polymodal.app.observe.consumption import own_processor_seconds, processor_seconds_of, resident_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_this_process_has_taken_some_time():
    before = own_processor_seconds()
    assert before > 0
    assert own_processor_seconds() >= before


@linux
def test_what_a_child_takes_is_counted_while_it_lives_and_kept_when_it_has_ended():
    code = "sum(range(5_000_000)); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        without = processor_seconds_of([])
        child.stdout.readline()
        living = processor_seconds_of([child.pid])
        assert living > without
        child.communicate(b"\n")
    assert processor_seconds_of([child.pid]) >= living - 0.02  # the kernel counts ticks of a hundredth until then
    assert processor_seconds_of([]) > without


@linux
def test_memory_is_that_of_all_that_live():
    alone = resident_bytes([os.getpid()])
    assert alone > 2**20
    assert resident_bytes([os.getpid(), 2**22 + 1]) >= alone // 2  # there is no process of such a number
    assert resident_bytes([]) == 0
