"""Other programs in the benchmark: their identity is what they run; scans are cut to a window where they need it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from backend.small_study import FOLDS, GRID, label_map
from pddnet.baselines.external.child import Command
from pddnet.baselines.external.program import ExternalMethod, Files, Peers
from pddnet.cross_validation import external
from pddnet.cross_validation.external import ExternalContender, external_contenders
from pddnet.cross_validation.methods import Hooks
from pddnet.errors import RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.interop.simpleitk import read_volume
from pddnet.volume import Volume
from pddnet.warp import DisplacementField


class StandIn(ExternalMethod):
    """A program that does nothing for a while; it notes the scans that it was given."""

    name, title, by_intensity = "stand-in", "a stand-in", True
    seconds = "0"
    shown: list[Volume]

    def absent(self) -> str | None:
        return None if self.peers.python else "no interpreter is named"

    def commands(self, files: Files) -> Sequence[Command]:
        files.at("settings.txt").write_text(f"seconds = {self.seconds}")
        code = "import sys, time; time.sleep(float(sys.argv[1])); open(sys.argv[2], 'w')"
        return [[self.peers.python, "-c", code, self.seconds, files.at("done")]]

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        StandIn.shown = [read_volume(files.fixed), read_volume(files.moving)]
        assert files.at("done").exists()
        return DisplacementField(torch.ones((*grid.shape, 3)), grid, grid)


@pytest.fixture
def contender(monkeypatch: pytest.MonkeyPatch) -> ExternalContender:
    def only(peers: Peers | None = None) -> list[ExternalMethod]:
        return [StandIn(peers or Peers(python=sys.executable))]

    monkeypatch.setattr(external, "external_methods", only)
    monkeypatch.setattr(external, "installed_packages", lambda python: {"of": Path(python).name})
    (found,) = external_contenders()
    return found


def scan(scale: float) -> Volume:
    noise = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(1))
    return Volume(scale * (label_map(0).data + noise), GRID)


def test_its_identity_is_what_it_runs_and_no_passing_folder(
    contender: ExternalContender, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = (contender.for_fold(fold, Hooks()).identity for fold in FOLDS)
    assert first == again
    assert first["commands"][0][-2:] == ["0", "FOLDER/done"]
    assert set(first["settings"]) == {"settings.txt"}
    assert len(first["programs"][sys.executable]) == 64
    assert first["packages"] == {"of": Path(sys.executable).name}
    monkeypatch.setattr(StandIn, "seconds", "0.01")
    changed = contender.for_fold(FOLDS[0], Hooks()).identity
    assert changed["commands"] != first["commands"]
    assert changed["settings"] != first["settings"]


@pytest.mark.parametrize("by_intensity", [True, False])
def test_scans_are_cut_to_a_window_for_those_that_compare_intensities(
    contender: ExternalContender, by_intensity: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(StandIn, "by_intensity", by_intensity)
    fixed, moving = scan(900.0), scan(300.0)
    found = contender.for_fold(FOLDS[0], Hooks()).register(fixed, moving, tmp_path)
    assert isinstance(found.transform, DisplacementField)
    assert bool((found.transform.vectors == 1).all())
    assert found.seconds > 0
    for given, shown in zip((fixed, moving), StandIn.shown, strict=True):
        low, high = float(shown.data.min()), float(shown.data.max())
        assert (low, high) == ((0.0, 1.0) if by_intensity else (given.data.min(), given.data.max()))


def test_it_is_ended_when_somebody_wants_to_stop(
    contender: ExternalContender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(StandIn, "seconds", "60")
    ready = contender.for_fold(FOLDS[0], Hooks(cancelled=lambda: True))
    with pytest.raises(RegistrationCancelled):
        ready.register(scan(1.0), scan(2.0), tmp_path)


def test_where_it_is_missing_it_says_so() -> None:
    assert ExternalContender(StandIn(Peers())).absent() == "no interpreter is named"
    titles = {method.title for method in external_contenders(Peers())}
    assert {"deeds+SSC, 1 level", "deeds+SSC, 3 levels", "NiftyReg NMI, 5 levels"} <= titles
