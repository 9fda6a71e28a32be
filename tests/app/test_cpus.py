import json
import os
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polymodal.app.cpus import Plan, default_plan, plans, read_plan, throttled_seconds
from polymodal.cores import available_cpus

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def host(tmp_path):
    """`host(membership, **files)`: paths of a /sys/fs/cgroup and a /proc/self/cgroup with this content."""

    def make(membership, **files):
        (tmp_path / "cgroup").mkdir()
        (tmp_path / "membership").write_text(membership)
        for path, content in files.items():
            file = (
                tmp_path
                / "cgroup"
                / path.replace("__", "/")
                .replace("_max", ".max")
                .replace("_stat", ".stat")
                .replace("cpu_cfs", "cpu.cfs")
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path / "cgroup", tmp_path / "membership"

    return make


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        pytest.param("0::/\n", {}, CORES, id="no-quota"),
        pytest.param("0::/\n", {"cpu_max": "max 100000\n"}, CORES, id="v2-unlimited"),
        pytest.param("0::/\n", {"cpu_max": "100000 100000\n"}, 1, id="v2-one-core"),
        pytest.param("0::/\n", {"cpu_max": "10000 100000\n"}, 1, id="v2-a-tenth-of-a-core"),
        pytest.param("0::/a/b\n", {"a__cpu_max": "100000 100000\n"}, 1, id="v2-limited-by-its-parent"),
        pytest.param(
            "4:cpu,cpuacct:/\n",
            {"cpu__cpu_cfs_quota_us": "100000", "cpu__cpu_cfs_period_us": "100000"},
            1,
            id="v1-one-core",
        ),
        pytest.param(
            "4:cpu,cpuacct:/\n",
            {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"},
            CORES,
            id="v1-unlimited",
        ),
        pytest.param("0::/\n", {"cpu_max": "nonsense"}, CORES, id="unreadable"),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(host, membership, files, cpus):
    assert available_cpus(*host(membership, **files)) == cpus


@pytest.mark.parametrize(
    ("membership", "files", "seconds"),
    [
        pytest.param("0::/\n", {}, None, id="no-group"),
        pytest.param("0::/\n", {"cpu_stat": "usage_usec 5\n"}, None, id="no-quota"),
        pytest.param("0::/\n", {"cpu_stat": "usage_usec 5\nthrottled_usec 1500000\n"}, 1.5, id="throttled"),
        pytest.param(
            "0::/a\n",
            {"a__cpu_stat": "throttled_usec 0\n", "cpu_stat": "throttled_usec 2000000\n"},
            2.0,
            id="by-its-parent",
        ),
        pytest.param("0::/\n", {"cpu_stat": "throttled_usec nonsense\n"}, None, id="unreadable"),
    ],
)
def test_throttled_seconds_are_read_from_the_group_or_its_parents(host, membership, files, seconds):
    assert throttled_seconds(*host(membership, **files)) == seconds


def test_a_fraction_of_a_core_is_rounded_up_to_at_most_all_cores(host):
    assert available_cpus(*host("0::/\n", cpu_max="150000 100000")) == min(2, CORES)


def test_without_cgroups_the_affinity_mask_decides(tmp_path):
    assert available_cpus(tmp_path / "none", tmp_path / "neither") == CORES


# Content of the kernel's files in a container, valid or not.
NUMBERS = st.integers(-(10**20), 10**20).map(str) | st.sampled_from(["max", "", "nan", "1e9", "0"])
QUOTAS = st.text(max_size=20) | st.builds("{} {}".format, NUMBERS, NUMBERS)


@given(
    st.text(max_size=40) | st.sampled_from(["0::/", "0::/a/b", "4:cpu:/", "0::/../../..", "4:cpu:/a", "words", "1:2"]),
    QUOTAS,
    NUMBERS,
)
@example("words", "max 100000", "0")
@example("0::/\x00", "1 1", "0")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_content_of_the_files_yields_a_valid_number_of_cores(tmp_path, membership, quota, period):
    group = tmp_path / "cgroup"
    (group / "cpu").mkdir(parents=True, exist_ok=True)
    (tmp_path / "membership").write_text(membership, encoding="utf-8", errors="replace")
    for name, content in (("cpu.max", quota), ("cpu/cpu.cfs_quota_us", period), ("cpu/cpu.cfs_period_us", quota)):
        (group / name).write_text(content, encoding="utf-8", errors="replace")
    assert 1 <= available_cpus(group, tmp_path / "membership") <= CORES


def test_binary_content_of_the_files_is_no_limit(tmp_path):
    (tmp_path / "membership").write_bytes(b"0::/\xff\n")
    (tmp_path / "cpu.max").write_bytes(b"\xff\xfe")
    assert available_cpus(tmp_path, tmp_path / "membership") == CORES


@given(st.integers(1, 1000), st.none() | st.integers(0, 256))
def test_a_plan_has_no_more_threads_than_cores_or_workers(cores, workers):
    plan = default_plan(cores, workers)
    assert plan.threads >= 1
    assert plan.threads * max(1, plan.workers) <= max(cores, plan.workers)
    for candidate in plans(cores):
        assert 1 <= candidate.workers * candidate.threads <= cores


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda plan: json.dumps({"plan": plan}).encode(), st.recursive(st.none() | st.integers() | st.text(), st.lists)
    )
    | st.dictionaries(
        st.sampled_from(["workers", "threads", "batch_items", "cores"]),
        st.integers() | st.none() | st.text(max_size=3) | st.floats(),
        min_size=3,
    ).map(lambda plan: json.dumps({"plan": plan}).encode())
)
@example(b'{"plan": {"workers": Infinity, "threads": 1, "batch_items": 1, "cores": 1}}')
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_read_as_a_plan_or_refused(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with suppress(ValueError):
        plan = read_plan(tmp_path / "plan.json")
        assert isinstance(plan, Plan)
        assert min(plan.threads, plan.batch_items) >= 1
