"""Free and peak memory, against made-up control groups and this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pddnet import memory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up /proc and /sys/fs/cgroup with 8 GB available and no control group; returns their parent."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory.sys, "platform", "linux")
    return tmp_path


def set_group(folder: Path, names: tuple[str, str, str], limit: str, usage: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 17\n{names[2]} {cache}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_a_control_group_the_kernel_says_what_is_available(machine: Path) -> None:
    assert machine.exists()
    assert memory.available_memory_mb() == pytest.approx(8192)


def test_the_limit_of_the_own_control_group_counts_without_its_cache(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/job/step\n")
    set_group(machine / "cgroup/job/step", V2, "3000000000", 1_200_000_000, 200_000_000)
    assert memory.available_memory_mb() == pytest.approx(2000)


def test_the_limit_of_a_group_above_counts_too(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("0::/job/step\n")
    set_group(machine / "cgroup/job/step", V2, "max", 1_200_000_000, 0)
    set_group(machine / "cgroup/job", V2, "1500000000", 1_200_000_000, 0)
    assert memory.available_memory_mb() == pytest.approx(300)


def test_a_limit_that_is_used_up_leaves_nothing(machine: Path) -> None:
    set_group(machine / "cgroup", V2, "1000", 2000, 0)
    assert memory.available_memory_mb() == 0


def test_control_groups_of_the_first_version_count_and_no_limit_is_a_huge_number(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("5:cpu,memory:/docker/abc\n1:name=systemd:/\n")
    set_group(machine / "cgroup/memory", V1, "9223372036854771712", 5, 0)
    assert memory.available_memory_mb() == pytest.approx(8192)
    set_group(machine / "cgroup/memory", V1, "2000000000", 500_000_000, 0)
    assert memory.available_memory_mb() == pytest.approx(1500)


def test_the_peak_grows_with_what_is_used_and_stays() -> None:
    before = memory.peak_memory_mb()
    block = np.ones(int(before * 1e6 + 50e6) // 8)  # as much as the peak so far, and 50 MB
    after = memory.peak_memory_mb()
    assert after > before + 40
    del block
    assert memory.peak_memory_mb() == pytest.approx(after, rel=0.05)


def test_this_machine_has_memory_left() -> None:
    assert 1 < memory.available_memory_mb() < float("inf")


def test_a_forgotten_peak_begins_anew_with_what_is_held_now() -> None:
    held = np.ones(25_000_000)  # 200 MB
    del held
    before = memory.peak_memory_mb()
    if not memory.forget_peak_memory():
        pytest.skip("this system does not let a process forget its peak memory")
    after = memory.peak_memory_mb()
    assert after < before - 100
    held = np.ones(12_500_000)
    assert memory.peak_memory_mb() == pytest.approx(after + held.nbytes / 1e6, abs=20)


def test_where_the_system_cannot_forget_the_peak_it_says_so(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not memory.forget_peak_memory()
    clear = machine / "proc/self/clear_refs"
    clear.write_text("")
    assert memory.forget_peak_memory()
    assert clear.read_text() == "5"
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.forget_peak_memory()
