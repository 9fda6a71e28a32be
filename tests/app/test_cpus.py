import os

import pytest

from app.cpus import available_cpus

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def host(tmp_path):
    """A made-up /sys/fs/cgroup and /proc/self/cgroup."""

    def make(membership, **files):
        (tmp_path / "cgroup").mkdir()
        (tmp_path / "membership").write_text(membership)
        for path, content in files.items():
            file = tmp_path / "cgroup" / path.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
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
def test_the_quota_of_a_container_counts(host, membership, files, cpus):
    assert available_cpus(*host(membership, **files)) == cpus


def test_a_part_of_a_core_counts_as_a_whole_one_but_never_exceeds_what_there_is(host):
    assert available_cpus(*host("0::/\n", cpu_max="150000 100000")) == min(2, CORES)


def test_without_cgroups_the_affinity_mask_decides(tmp_path):
    assert available_cpus(tmp_path / "none", tmp_path / "neither") == CORES
