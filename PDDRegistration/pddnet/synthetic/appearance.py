"""Hounsfield units of the tissues, by contrast phase, and the patterns inside organs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum

import torch

from pddnet.synthetic.canvas import Tissue
from pddnet.synthetic.implicit import Points
from pddnet.synthetic.texture import Texture

GAS = -990.0
FAT = -103.0
SKIN = -5.0


class Contrast(Enum):
    """When, after the injection of contrast agent, the scan was taken."""

    NONE = "non-contrast"
    ARTERIAL = "arterial"
    PORTAL = "portal-venous"


@dataclass(frozen=True)
class Attenuation:
    """Mean Hounsfield units of the tissues that differ between contrast phases or between patients."""

    liver: float = 57.0
    spleen: float = 48.0
    pancreas: float = 38.0
    cortex: float = 34.0
    medulla: float = 31.0
    muscle: float = 54.0
    aorta: float = 42.0
    cava: float = 40.0
    portal: float = 41.0
    hepatic: float = 41.0
    bowel_wall: float = 38.0
    bile: float = 8.0
    urine: float = 5.0
    marrow: float = 190.0

    def varied(self, generator: torch.Generator, variation: float) -> Attenuation:
        """Another patient's: each value moves by a few per cent and a few HU."""
        spread = (
            torch.randn(len(fields(self)), generator=generator, dtype=torch.float64).clamp(-2, 2).tolist()
        )
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return Attenuation(
            **{
                name: hu + variation * z * (2.0 + 0.05 * abs(hu))
                for (name, hu), z in zip(values, spread, strict=True)
            }
        )


_NONE = Attenuation()
ATTENUATION = {
    Contrast.NONE: _NONE,
    Contrast.ARTERIAL: replace(
        _NONE, liver=72, spleen=118, pancreas=102, cortex=178, medulla=66, muscle=58,
        aorta=310, cava=75, portal=95, hepatic=62, bowel_wall=78,
    ),
    Contrast.PORTAL: replace(
        _NONE, liver=112, spleen=124, pancreas=96, cortex=188, medulla=158, muscle=64,
        aorta=152, cava=140, portal=172, hepatic=168, bowel_wall=92,
    ),
}  # fmt: skip


class Palette:
    """The tissues of one patient, ready for `Canvas.paint`."""

    def __init__(self, attenuation: Attenuation, texture: Texture) -> None:
        self.mean = attenuation
        self._texture = texture

    def parenchyma(self, hu: float, amplitude: float = 5.0, wavelength: float = 7.0) -> Tissue:
        """A solid organ, slightly uneven."""
        return lambda points, _: hu + amplitude * self._texture(points, wavelength)

    def fat(self, points: Points, _: torch.Tensor) -> torch.Tensor:
        """Fat with septa and the small vessels that run in it."""
        strands = (self._texture(points, 9.0) - 1.5).clamp(min=0)
        return FAT + 4 * self._texture(points, 25.0) + 45 * strands

    def muscle(self, points: Points, _: torch.Tensor) -> torch.Tensor:
        """Muscle with sheets of fat between its bellies, and streaks within."""
        sheets = (1 - self._texture(points, (32.0, 26.0, 70.0)).abs() * 11).clamp(min=0)
        streaks = (self._texture(points, (4.0, 4.0, 24.0)) - 1.0).clamp(0, 1)
        return self.mean.muscle - 120 * sheets - 25 * streaks

    def bone(self, cortex_mm: float = 2.0) -> Tissue:
        """Dense at the surface, spongy within."""

        def hu(points: Points, distance: torch.Tensor) -> torch.Tensor:
            spongy = self.mean.marrow + 28 * self._texture(points, 3.5)
            rim = (1 + distance / (2 * cortex_mm)).clamp(0, 1)
            return spongy + (780 - spongy) * rim.square()

        return hu

    def kidney(self, points: Points, distance: torch.Tensor) -> torch.Tensor:
        """Cortex outside, pyramids inside."""
        pyramids = ((-distance - 8.0 + 2.5 * self._texture(points, 11.0)) / 3.0).clamp(0, 1)
        return self.mean.cortex + (self.mean.medulla - self.mean.cortex) * pyramids

    def lung(self, points: Points, _: torch.Tensor) -> torch.Tensor:
        """Air with vessels."""
        vessels = (self._texture(points, 8.0) - 1.3).clamp(0, 1)
        return -860 + 700 * vessels - 10 * self._texture(points, 40.0)

    def hollow(self, wall_mm: float, inside: Callable[[Points], torch.Tensor]) -> Tissue:
        """A wall around contents."""

        def hu(points: Points, distance: torch.Tensor) -> torch.Tensor:
            lumen = (-distance - wall_mm + 0.5).clamp(0, 1)
            return self.mean.bowel_wall + lumen * (inside(points) - self.mean.bowel_wall)

        return hu

    def stomach(self, level: float) -> Tissue:
        """Gas in front of food and fluid; `level` is the y of their surface, mm."""

        def contents(points: Points) -> torch.Tensor:
            gas = ((level - points[1]) / 2).clamp(0, 1)
            food = 24 + 12 * self._texture(points, 8.0)
            return food + (GAS - food) * gas

        return self.hollow(4.0, contents)

    def colon(self) -> Tissue:
        """Stool with bubbles, and pockets of gas."""

        def contents(points: Points) -> torch.Tensor:
            bubbles = (self._texture(points, 5.0) - 0.9).clamp(0, 1.2)
            stool = 10 + 35 * self._texture(points, 6.0) - 350 * bubbles
            in_front = (-55 - points[1]) / 40
            pocket = ((self._texture(points, (34.0, 60.0, 34.0)) + in_front - 0.1) * 4).clamp(0, 1)
            return stool + (GAS - stool) * pocket

        return self.hollow(2.5, contents)

    def small_bowel(self) -> Tissue:
        """Fluid, here and there a bubble of gas in front."""

        def contents(points: Points) -> torch.Tensor:
            bubble = ((self._texture(points, 16.0) + (-62 - points[1]) / 15 - 1.2) * 3).clamp(0, 1)
            return 18 + (GAS - 18) * bubble

        return self.hollow(2.5, contents)
