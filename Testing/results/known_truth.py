"""Pairs whose true displacement is known: a scan, and the same scan deformed, with other contrast and more noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from pddnet.interop.simpleitk import read_volume
from pddnet.synthetic import synthetic_deformation, synthetic_patient
from pddnet.volume import Volume
from pddnet.warp import SpatialTransform

Modality = Literal["ct", "mr"]

_NOISE_HU, _CONTRAST_HU, _CONTRAST_PERIOD_HU = 25.0, 30.0, 750.0
_NOISE_MR, _GAMMA_MR = 0.03, 0.7
_HIPPOCAMPI = ("091", "210", "394")


@dataclass(frozen=True)
class KnownPair:
    """What to register with which preset; `truth` takes fixed points to moving points, mm LPS."""

    name: str
    preset: str
    fixed: Volume
    moving: Volume
    truth: SpatialTransform


@dataclass(frozen=True)
class Recipe:
    """How a pair is made: of what, and how strongly it is deformed."""

    name: str
    preset: str
    read: Callable[[], Volume]
    modality: Modality
    magnitude_mm: float
    smoothness_mm: float

    def pair(self, seed: int) -> KnownPair:
        """The pair of a seed."""
        moving = self.read()
        truth = synthetic_deformation(moving.geometry, seed, self.magnitude_mm, self.smoothness_mm)
        fixed = disturbed(truth.warp(moving), self.modality, seed)
        return KnownPair(self.name, self.preset, fixed, moving, truth)


def recipes(data: Path) -> Iterator[Recipe]:
    """All pairs of the report."""

    def of(name: str) -> Callable[[], Volume]:
        return lambda: read_volume(data / name)

    for patient, magnitude, smoothness in (("a", 25.0, 60.0), ("b", 20.0, 45.0)):
        scan = of(f"abdomen-ct/patient-{patient}-ct.nii.gz")
        for preset in ("abdomen-ct", "fast"):
            yield Recipe(f"abdomen {patient}", preset, scan, "ct", magnitude, smoothness)
    made_up = _made_up_patient
    yield Recipe("synthetic patient", "abdomen-ct", made_up, "ct", 25.0, 60.0)
    yield Recipe("thorax", "thorax-ct", of("thorax-ct/lung-ct-small.mha"), "ct", 20.0, 50.0)
    for subject in "ab":
        yield Recipe(
            f"brain {subject}", "brain-mr", of(f"brain-mr/subject-{subject}-t1.nii.gz"), "mr", 12.0, 40.0
        )
    for number in _HIPPOCAMPI:
        scan = of(f"hippocampus-mr/images/hippocampus_{number}.nii.gz")
        yield Recipe(f"hippocampus {number}", "generic", scan, "mr", 5.0, 15.0)


def disturbed(scan: Volume, modality: Modality, seed: int) -> Volume:
    """The scan with another contrast and noise inside the body, as a second scanner might show it."""
    noise = torch.randn(scan.data.shape, generator=torch.Generator().manual_seed(1000 + seed))
    if modality == "ct":
        contrast = _CONTRAST_HU * torch.sin(scan.data * (2 * torch.pi / _CONTRAST_PERIOD_HU))
        return replace(scan, data=scan.data + _NOISE_HU * noise + contrast * (scan.data > -150))
    low, high = torch.quantile(scan.data.flatten()[::37], torch.tensor([0.02, 0.99])).tolist()
    share = ((scan.data - low) / (high - low)).clamp(min=0)
    body = share > 0.02  # skull-stripped scans have no noise around the brain
    return replace(scan, data=low + (high - low) * (share**_GAMMA_MR + _NOISE_MR * noise * body))


def _made_up_patient() -> Volume:
    return synthetic_patient(7, (128, 108, 120), 3.0).ct
