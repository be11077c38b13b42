"""Adapters of other programs, on stand-ins that find a known map: conventions, commands, absence, costs, cancelling."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backend import fake_peers
from pddnet.baselines.external import child, deeds
from pddnet.baselines.external.all_methods import external_methods
from pddnet.baselines.external.deeds import DEFAULT_LEVELS, ONE_LEVEL, THREE_LEVELS, Deeds, DeedsLevels
from pddnet.baselines.external.packages import AntsSyn, installed_packages
from pddnet.baselines.external.program import ExternalMethod, Files, Peers
from pddnet.baselines.method import Method
from pddnet.errors import InputError, RegistrationCancelled
from pddnet.geometry import Frame, ImageGeometry
from pddnet.memory import peak_memory_mb
from pddnet.points import slabs
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, SpatialTransform

NAMES = ("deeds-1", "deeds-3", "deeds-5", "niftyreg", "ants-syn", "greedy", "elastix", "convexadam")


def truth_about(centre: np.ndarray) -> np.ndarray:
    """Stretch, shear and shift about a point: nothing that a swapped axis or sign would leave as it is."""
    linear = np.array([[1.04, 0.03, -0.02], [-0.01, 0.97, 0.04], [0.02, -0.03, 1.02]])
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array([0.8, -1.1, 0.5]) + centre - linear @ centre
    return matrix


def scan(geometry: ImageGeometry) -> Volume:
    return Volume(torch.rand(geometry.shape), geometry)


def peers_of(folder: Path, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch, threads: int = 1) -> Peers:
    """Every stand-in, the Python packages on the path of this interpreter."""
    programs, packages = folder / "programs", folder / "packages"
    fake_peers.install_programs(programs, truth, fake_peers.DEEDS + fake_peers.NIFTYREG + fake_peers.ELASTIX)
    fake_peers.install_packages(packages, truth)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setattr(deeds, "_LEAST_VOXELS", 12)  # the stand-ins are slow
    installed_packages.cache_clear()
    place = str(programs)
    return Peers(sys.executable, place, place, place, threads)


def worst_mm(
    found: SpatialTransform, truth: np.ndarray, fixed: ImageGeometry, moving: ImageGeometry
) -> float:
    """Largest distance from the truth, at those fixed voxels that come to lie well inside the moving scan."""
    points = next(iter(slabs(fixed)))[1].reshape(-1, 3)
    expected = AffineTransform(truth).apply(points)
    index = torch.from_numpy(moving.to_index(expected.numpy()))
    stay = ((index >= 1) & (index <= torch.tensor(moving.size) - 2)).all(1)
    assert int(stay.sum()) > 100
    return float((found.apply(points) - expected)[stay].norm(dim=1).max())


def method_of(peers: Peers, name: str) -> ExternalMethod:
    return next(method for method in external_methods(peers) if method.name == name)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


class TestConventions:
    @pytest.mark.parametrize("name", ["deeds-3", "niftyreg", "ants-syn", "greedy", "elastix", "convexadam"])
    def test_the_map_that_was_found_comes_back(
        self,
        name: str,
        oblique_geometry: ImageGeometry,
        tmp_path: Path,
        work: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        truth = truth_about(oblique_geometry.centre)
        peers = peers_of(tmp_path, truth, monkeypatch)
        fixed, moving = scan(oblique_geometry), scan(oblique_geometry)
        run = method_of(peers, name).register(fixed, moving, work)
        assert worst_mm(run.transform, truth, oblique_geometry, oblique_geometry) < 2e-3
        assert run.seconds > 0

    def test_the_comparison_sees_wrong_signs_and_orders(self, oblique_geometry: ImageGeometry) -> None:
        truth = truth_about(oblique_geometry.centre)
        grids = (oblique_geometry, oblique_geometry)
        right = AffineTransform(truth)
        assert worst_mm(right, truth, *grids) < 1e-9
        assert worst_mm(right.inverse(), truth, *grids) > 1
        ras = np.diag([-1.0, -1.0, 1.0])

        class Wrong:
            def __init__(self, change: np.ndarray) -> None:
                self.change = torch.from_numpy(change)

            def apply(self, points_lps: torch.Tensor) -> torch.Tensor:
                return points_lps + (right.apply(points_lps) - points_lps) @ self.change.T

        rows = oblique_geometry.matrix(Frame.LPS, Frame.INDEX)[:3, :3]
        for change in (ras, np.eye(3)[[2, 1, 0]], rows):  # RAS taken as LPS; z, y, x; voxels
            assert worst_mm(Wrong(np.ascontiguousarray(change)), truth, *grids) > 0.5

    @pytest.mark.parametrize("name", ["deeds-3", "niftyreg"])  # on the fixed grid only, and anywhere
    def test_scans_far_apart_are_brought_together_first(
        self,
        name: str,
        oblique_geometry: ImageGeometry,
        tmp_path: Path,
        work: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        elsewhere = ImageGeometry((13, 12, 10), (1.0, 1.4, 1.1), (300.0, -200.0, 40.0))
        shift = elsewhere.centre - oblique_geometry.centre
        placed = truth_about(oblique_geometry.centre)  # what the program finds between its files
        truth = AffineTransform.translation(shift).matrix @ placed
        peers = peers_of(tmp_path, placed, monkeypatch)
        run = method_of(peers, name).register(scan(oblique_geometry), scan(elsewhere), work)
        method = method_of(peers, name)
        inside = oblique_geometry if method.one_grid else None
        moving = elsewhere if inside is None else shifted(inside, shift)
        assert worst_mm(run.transform, truth, oblique_geometry, moving) < 2e-3

    def test_itk_elastix_is_asked_where_the_programs_are_absent(
        self, oblique_geometry: ImageGeometry, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        truth = truth_about(oblique_geometry.centre)
        both = peers_of(tmp_path, truth, monkeypatch, threads=3)
        peers = Peers(both.python, elastix=str(work.parent / "nowhere"), threads=3)
        run = method_of(peers, "elastix").register(scan(oblique_geometry), scan(oblique_geometry), work)
        assert worst_mm(run.transform, truth, oblique_geometry, oblique_geometry) < 2e-3
        assert fake_peers.calls(tmp_path / "packages")[0]["words"] == [3]


def shifted(grid: ImageGeometry, shift: np.ndarray) -> ImageGeometry:
    x, y, z = np.asarray(grid.origin) + shift
    return ImageGeometry(grid.size, grid.spacing, (float(x), float(y), float(z)), grid.direction)


class TestDeedsGrid:
    def test_many_cubes_are_left_as_they_are(self) -> None:
        grid = ImageGeometry((192, 160, 176), (2.0, 2.0, 2.0), (3.0, 4.0, 5.0))
        assert Deeds(Peers()).working_grid(grid) is grid

    @pytest.mark.parametrize(
        ("size", "spacing", "most"),
        [
            ((37, 52, 30), (1.0, 1.0, 1.0), 9e6),
            ((512, 512, 100), (0.7, 0.7, 5.0), 9e6),
            ((128, 128, 110), (1.0, 1.0, 1.4), 9e6),
        ],
    )
    def test_few_voxels_or_long_ones_become_cubes_over_the_same_field_of_view(
        self,
        size: tuple[int, int, int],
        spacing: tuple[float, float, float],
        most: float,
        oblique_geometry: ImageGeometry,
    ) -> None:
        scan_grid = ImageGeometry(size, spacing, oblique_geometry.origin, oblique_geometry.direction)
        grid = Deeds(Peers()).working_grid(scan_grid)
        assert len(set(grid.spacing)) == 1
        np.testing.assert_allclose(grid.centre, scan_grid.centre, atol=1e-9)
        np.testing.assert_allclose(grid.extent, scan_grid.extent, atol=grid.spacing[0] / 2 + 1e-9)
        assert grid.direction == scan_grid.direction
        assert min(grid.size) >= 96
        assert np.prod(grid.size) < most


class TestCommands:
    @pytest.mark.parametrize(
        ("levels", "options"),
        [
            (ONE_LEVEL, "-l 1 -G 8 -L 8 -Q 5"),
            (THREE_LEVELS, "-l 3 -G 8x6x4 -L 8x6x4 -Q 5x3x1"),
            (DEFAULT_LEVELS, "-l 5 -G 8x7x6x5x4 -L 8x7x6x5x4 -Q 5x4x3x2x1"),
        ],
    )
    def test_deeds_is_told_its_levels(self, levels: DeedsLevels, options: str, tmp_path: Path) -> None:
        files = Files(tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", tmp_path)
        linear, deformable = Deeds(Peers(), levels).commands(files)
        assert options in " ".join(map(str, deformable))
        assert options not in " ".join(map(str, linear))

    def test_deeds_runs_its_programs_in_order_in_its_folder_on_its_threads(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = ImageGeometry((4, 4, 4))
        peers = peers_of(tmp_path, np.eye(4), monkeypatch, threads=3)
        Deeds(peers).register(scan(grid), scan(grid), work)
        called = fake_peers.calls(tmp_path / "programs")
        assert [call["tool"] for call in called] == ["linearBCV", "deedsBCV", *3 * ["applyBCVfloat"]]
        assert {call["OMP_NUM_THREADS"] for call in called} == {"3"}
        assert {call["folder"] for call in called} == {str(work)}

    def test_niftyreg_runs_five_levels_on_the_threads_it_may_use(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = ImageGeometry((4, 4, 4))
        peers = peers_of(tmp_path, np.eye(4), monkeypatch, threads=2)
        method_of(peers, "niftyreg").register(scan(grid), scan(grid), work)
        called = fake_peers.calls(tmp_path / "programs")
        assert [call["tool"] for call in called] == ["reg_aladin", "reg_f3d", "reg_transform"]
        for call in called[:2]:
            words = " ".join(map(str, call["words"]))
            assert "-ln 5" in words
            assert "-omp 2" in words

    def test_greedy_and_ants_use_the_threads_they_may(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = ImageGeometry((4, 4, 4))
        peers = peers_of(tmp_path, np.eye(4), monkeypatch, threads=2)
        for name in ("greedy", "ants-syn"):
            (work / name).mkdir()
            method_of(peers, name).register(scan(grid), scan(grid), work / name)
        *greedy, ants = fake_peers.calls(tmp_path / "packages")
        assert all(call["words"][:2] == ["-threads", "2"] for call in greedy)  # type: ignore[index]
        assert len(greedy) == 3
        assert ants["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "2"


class TestAbsence:
    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_not_there_says_how_to_get_it(self, name: str, work: Path) -> None:
        nowhere = str(work / "nowhere")
        method = method_of(Peers("", nowhere, nowhere, nowhere), name)
        assert isinstance(method, Method)
        reason = method.absent()
        assert reason is not None
        assert "$PDDNET_PEERS_" in reason
        grid = ImageGeometry((4, 4, 4))
        with pytest.raises(InputError, match=f"{name} cannot run"):
            method.register(scan(grid), scan(grid), work)

    def test_a_part_that_is_missing_is_named(self, tmp_path: Path) -> None:
        fake_peers.install_programs(tmp_path / "some", np.eye(4), ("linearBCV", "applyBCVfloat"))
        reason = Deeds(Peers(deeds=str(tmp_path / "some"))).absent()
        assert reason is not None
        assert reason.startswith("deedsBCV of deedsBCV is not in")

    def test_an_interpreter_without_the_package_or_that_does_not_run(self, tmp_path: Path) -> None:
        installed_packages.cache_clear()
        reason = AntsSyn(Peers(sys.executable)).absent()
        assert reason == f"antspyx is not installed in {sys.executable}; install it there"
        broken = AntsSyn(Peers(str(tmp_path / "python"))).absent()
        assert broken is not None
        assert "no working Python interpreter" in broken

    def test_the_environment_says_where_they_are(self) -> None:
        places = {
            f"PDDNET_PEERS_{name}": f"/{name.lower()}" for name in ("PYTHON", "DEEDS", "NIFTYREG", "ELASTIX")
        }
        peers = Peers.of_environment(places)
        assert (peers.python, peers.deeds, peers.niftyreg, peers.elastix) == (
            "/python",
            "/deeds",
            "/niftyreg",
            "/elastix",
        )
        assert Peers.of_environment({}).python == ""

    def test_a_relative_folder_is_meant_from_here_and_no_threads_are_refused(self) -> None:
        assert Peers(deeds="some").deeds == os.path.abspath("some")
        with pytest.raises(InputError, match="threads is 0"):
            Peers(threads=0)

    def test_a_folder_in_use_is_refused(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = ImageGeometry((4, 4, 4))
        peers = peers_of(tmp_path, np.eye(4), monkeypatch)
        (work / "there").touch()
        with pytest.raises(InputError, match="is no empty folder"):
            method_of(peers, "niftyreg").register(scan(grid), scan(grid), work)

    def test_a_field_on_another_grid_is_refused(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = ImageGeometry((4, 4, 4))
        peers = peers_of(tmp_path, np.eye(4), monkeypatch)
        package = tmp_path / "packages" / "picsl_greedy.py"
        cropping = "def write_field(image, path):\n    image = image[1:]"
        package.write_text(package.read_text().replace("def write_field(image, path):", cropping))
        with pytest.raises(InputError, match="did not keep the fixed grid"):
            method_of(peers, "greedy").register(scan(grid), scan(grid), work)


def python(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


class TestChildren:
    def test_the_memory_is_the_programs_own(self, work: Path) -> None:
        assert peak_memory_mb() > 150  # what a child would be charged with if nobody took care
        small = child.run_program(python("pass"), work, 1)
        large = child.run_program(python("x = b'x' * 200_000_000"), work, 1)
        assert small.peak_mb is not None
        assert large.peak_mb is not None
        assert small.peak_mb < 60
        assert 200 < large.peak_mb < 260

    def test_the_largest_of_the_programs_that_it_starts_counts(self, work: Path) -> None:
        grandchild = (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = b\"x\" * 150_000_000'])"
        )
        cost = child.run_program(python(grandchild), work, 1)
        assert cost.peak_mb is not None
        assert 150 < cost.peak_mb < 210

    def test_costs_of_several_add_up(self) -> None:
        total = child.ChildCost.total([child.ChildCost(1.0, 50.0), child.ChildCost(2.5, None)])
        assert total == child.ChildCost(3.5, 50.0)
        assert child.ChildCost.total([child.ChildCost(1.0, None)]).peak_mb is None

    def test_the_time_is_wall_time(self, work: Path) -> None:
        assert 0.3 <= child.run_program(python("import time; time.sleep(0.3)"), work, 1).seconds < 20

    def test_a_failure_is_told_in_the_programs_last_words(self, work: Path) -> None:
        with pytest.raises(child.ProgramFailed, match=r"ended with 7:\nbeware"):
            child.run_program(python("import sys; print('beware'); sys.exit(7)"), work, 1)
        with pytest.raises(child.ProgramFailed, match="it said nothing"):
            child.run_program(python("import os; os.kill(os.getpid(), 9)"), work, 1)
        with pytest.raises(child.ProgramFailed, match="nowhere cannot be started"):
            child.run_program([str(work / "nowhere")], work, 1)

    @pytest.mark.parametrize("how", ["asked", "raised"])
    def test_a_cancelled_program_is_gone_with_all_that_it_started(self, how: str, work: Path) -> None:
        text = (
            "import os, subprocess, sys, time; "
            "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
            "open('pids.part', 'w').write(f'{os.getpid()} {p.pid}'); os.rename('pids.part', 'pids'); time.sleep(60)"
        )
        began = time.monotonic()
        cancelled: Callable[[], bool] = (work / "pids").exists
        if how == "raised":

            def cancelled() -> bool:
                if (work / "pids").exists():
                    raise KeyboardInterrupt
                return False

        with pytest.raises(RegistrationCancelled if how == "asked" else KeyboardInterrupt):
            child.run_program(python(text), work, 1, cancelled)
        assert time.monotonic() - began < 30
        for pid in (work / "pids").read_text().split():
            assert gone(int(pid))

    def test_a_registration_is_cancelled_from_another_thread(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grid = ImageGeometry((4, 4, 4))
        peers_of(tmp_path, np.eye(4), monkeypatch)
        slow = tmp_path / "programs" / "linearBCV"
        slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
        stop = threading.Event()
        threading.Timer(0.5, stop.set).start()
        peers = Peers(deeds=str(tmp_path / "programs"), cancelled=stop.is_set)
        with pytest.raises(RegistrationCancelled):
            Deeds(peers).register(scan(grid), scan(grid), work)


def gone(pid: int, patience: float = 5.0) -> bool:
    """Whether a process ends, or has ended and waits for nobody but its parent."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
