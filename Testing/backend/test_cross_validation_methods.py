"""Time and memory of what runs in this process; no registration at all; a preset in the benchmark."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.small_study import FOLDS, GRID, label_map
from pddnet.config import load_preset
from pddnet.cross_validation import methods
from pddnet.cross_validation.method_table import BEFORE
from pddnet.cross_validation.methods import Hooks, measured
from pddnet.cross_validation.untrained import PresetMethod, Unregistered
from pddnet.errors import RegistrationCancelled
from pddnet.geometry import ImageGeometry
from pddnet.memory import forget_peak_memory
from pddnet.registration import register
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, SpatialTransform

CPU = torch.device("cpu")


def using(megabytes: int, seconds: float = 0.0) -> SpatialTransform:
    held = np.ones(megabytes * 125_000)
    time.sleep(seconds)
    return AffineTransform.translation((float(held[0]), 0.0, 0.0))


def scan(shift: int) -> Volume:
    noise = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(shift))
    return Volume(100.0 * label_map(shift).data + noise, GRID)


def test_a_runs_own_time_and_memory_are_measured_whatever_ran_before() -> None:
    if not forget_peak_memory():
        pytest.skip("this system does not let a process forget its peak memory")
    large = measured(lambda: using(400), CPU)
    small = measured(lambda: using(100, seconds=0.05), CPU)
    assert large.peak_mb is not None
    assert small.peak_mb is not None
    assert large.peak_mb - small.peak_mb == pytest.approx(300, abs=30)
    assert small.seconds >= 0.05
    assert isinstance(small.transform, AffineTransform)


def test_memory_that_cannot_be_told_from_what_was_before_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(methods, "forget_peak_memory", lambda: False)
    peaks = iter([500.0, 500.0, 500.0, 700.0])
    monkeypatch.setattr(methods, "peak_memory_mb", lambda: next(peaks))
    assert measured(lambda: using(1), CPU).peak_mb is None
    assert measured(lambda: using(1), CPU).peak_mb == 700.0


def test_before_puts_the_centres_onto_each_other_and_identity_does_not(tmp_path: Path) -> None:
    fixed = scan(0)
    moving = Volume(torch.zeros(4, 5, 6), ImageGeometry((6, 5, 4), (1.0, 2.0, 3.0), (40.0, -30.0, 20.0)))
    centre = torch.as_tensor(fixed.geometry.centre)
    placed = BEFORE.for_fold(FOLDS[0], Hooks()).register(fixed, moving, tmp_path)
    np.testing.assert_allclose(placed.transform.apply(centre), moving.geometry.centre)
    left = Unregistered("identity", "none", centred=False).register(fixed, moving, tmp_path)
    np.testing.assert_allclose(left.transform.apply(centre), centre)
    assert (placed.seconds, placed.peak_mb) == (0.0, None)


def test_a_preset_registers_as_a_user_would(tmp_path: Path) -> None:
    fixed, moving = scan(0), scan(2)
    ready = PresetMethod("abdomen-ct", load_preset("abdomen-ct"), "cpu").for_fold(FOLDS[0], Hooks())
    found = ready.register(fixed, moving, tmp_path)
    expected = register(fixed, moving, preset="abdomen-ct", device="cpu").displacement
    points = torch.as_tensor(fixed.geometry.centre)[None]
    assert torch.equal(found.transform.apply(points), expected.apply(points))
    assert found.seconds > 0


def test_a_preset_is_stopped_when_somebody_wants_that(tmp_path: Path) -> None:
    stopped = PresetMethod("abdomen-ct", load_preset("abdomen-ct"), "cpu").for_fold(
        FOLDS[0], Hooks(cancelled=lambda: True)
    )
    with pytest.raises(RegistrationCancelled):
        stopped.register(scan(0), scan(2), tmp_path)
