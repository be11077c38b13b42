"""What makes one synthetic patient differ from another: named numbers, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch

_WIDEST = 2.0  # standard deviations


def _number(mean: float, deviation: float) -> float:
    return field(default=mean, metadata={"deviation": deviation})


@dataclass(frozen=True)
class Habitus:
    """Pose, body and organ shape. The defaults are the mean patient; lengths in mm, angles in degrees, LPS.

    Fields that end in `_size` scale lengths; `_left`, `_back`, `_up` shift to the patient's left, back, head.
    """

    turn: float = _number(0.0, 4.0)
    """Rotation about the long axis."""
    nod: float = _number(0.0, 2.5)
    """Rotation about the left-right axis."""
    lean: float = _number(0.0, 3.0)
    """Rotation about the front-back axis."""
    left: float = _number(0.0, 7.0)
    back: float = _number(0.0, 7.0)
    up: float = _number(0.0, 15.0)
    scoliosis: float = _number(0.0, 5.0)
    """Sideways excursion of the spine."""
    lordosis: float = _number(0.0, 4.0)
    """Forward excursion of the lumbar spine beyond the mean."""
    body_width_size: float = _number(1.0, 0.045)
    body_depth_size: float = _number(1.0, 0.06)
    body_length_size: float = _number(1.0, 0.045)
    fat: float = _number(17.0, 7.0)
    """Mean thickness of the subcutaneous fat."""
    muscle_size: float = _number(1.0, 0.12)

    liver_size: float = _number(1.0, 0.025)
    liver_reach: float = _number(0.0, 12.0)
    """How much further the left lobe reaches to the left."""
    liver_tip: float = _number(0.0, 12.0)
    """How much further the right lobe reaches down."""
    liver_dome_up: float = _number(0.0, 7.0)
    spleen_size: float = _number(1.0, 0.09)
    spleen_back: float = _number(0.0, 7.0)
    spleen_up: float = _number(0.0, 9.0)
    right_kidney_size: float = _number(1.0, 0.05)
    right_kidney_up: float = _number(0.0, 12.0)
    right_kidney_turn: float = _number(0.0, 10.0)
    left_kidney_size: float = _number(1.0, 0.05)
    left_kidney_up: float = _number(0.0, 12.0)
    left_kidney_turn: float = _number(0.0, 10.0)
    pancreas_size: float = _number(1.0, 0.045)
    pancreas_up: float = _number(0.0, 8.0)
    pancreas_slope: float = _number(0.0, 9.0)
    """How much higher the tail lies, seen from the head."""
    gallbladder_size: float = _number(1.0, 0.09)
    gallbladder_left: float = _number(0.0, 7.0)
    gallbladder_up: float = _number(0.0, 6.0)
    bladder_size: float = _number(1.0, 0.11)
    bladder_height_size: float = _number(1.0, 0.09)
    bladder_left: float = _number(0.0, 4.0)
    psoas_size: float = _number(1.0, 0.09)
    stomach_size: float = _number(1.0, 0.08)
    stomach_up: float = _number(0.0, 9.0)
    stomach_gas: float = _number(0.3, 0.1)
    """Share of the stomach's depth filled with gas."""
    colon_size: float = _number(1.0, 0.13)
    transverse_colon_up: float = _number(0.0, 14.0)
    bowel_left: float = _number(0.0, 10.0)
    aorta_size: float = _number(1.0, 0.12)

    @classmethod
    def drawn(cls, generator: torch.Generator, variation: float) -> Habitus:
        """A random patient; `variation` scales the spread, 0 gives the mean patient."""
        spread = torch.randn(len(fields(cls)), generator=generator, dtype=torch.float64)
        steps = zip(fields(cls), spread.clamp(-_WIDEST, _WIDEST).tolist(), strict=True)
        return cls(*(f.default + variation * f.metadata["deviation"] * z for f, z in steps))
