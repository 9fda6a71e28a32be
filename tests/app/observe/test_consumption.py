"""Processor time and memory of processes."""

import os
import subprocess
import sys

from polymodal.app.observe.consumption import own_processor_seconds, processor_seconds_of, resident_bytes


def test_this_process_has_used_processor_time():
    before = own_processor_seconds()
    assert 0 < before <= own_processor_seconds()


def test_processor_time_of_a_child_counts_while_it_lives_and_after_it_has_ended():
    code = "sum(range(5_000_000)); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        without = processor_seconds_of([])
        child.stdout.readline()
        alive = processor_seconds_of([child.pid])
        assert alive > without
        child.communicate(b"\n")
    assert processor_seconds_of([child.pid]) >= alive - 0.02  # the kernel counts ticks of a hundredth until then
    assert processor_seconds_of([]) > without


def test_memory_is_the_sum_over_living_processes():
    own = resident_bytes([os.getpid()])
    assert own > 2**20
    assert resident_bytes([os.getpid(), 2**22 + 1]) >= own // 2  # there is no process of such a number
    assert resident_bytes([]) == 0
