"""What every test may use: the development data, an awkward geometry, the same random numbers each time."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before PyTorch; spinning threads starve one another

import numpy as np
import pytest
import torch
from hypothesis import settings

from pddnet.geometry import ImageGeometry

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("same-examples", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "new-examples", deadline=None, max_examples=200
)  # --hypothesis-profile=new-examples
settings.load_profile("same-examples")


def pytest_configure() -> None:
    """Share the cores among pytest-xdist's workers, so that they do not wait for one another."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real scans and reference results beside the project; skips the test without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"the development data is not at {folder}")
    return folder


@pytest.fixture(params=["right-handed", "left-handed"])
def oblique_geometry(request: pytest.FixtureRequest) -> ImageGeometry:
    """A grid that forgives nothing: unequal odd sizes, unequal spacings, oblique axes, an origin far off."""
    turn, tilt = np.deg2rad(25.0), np.deg2rad(-15.0)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    direction = about_z @ about_x
    if request.param == "left-handed":
        direction[:, 1] *= -1
    rows = tuple((float(x), float(y), float(z)) for x, y, z in direction)
    return ImageGeometry((7, 9, 11), (1.5, 2.0, 0.75), (-31.0, 12.5, 104.0), (rows[0], rows[1], rows[2]))
