"""A whole synthetic patient: an abdominal CT with nine labelled organs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from pddnet.errors import InputError
from pddnet.geometry import Frame, ImageGeometry
from pddnet.points import slabs, transform_points_torch
from pddnet.synthetic.anatomy import Anatomy
from pddnet.synthetic.appearance import ATTENUATION, Attenuation, Contrast
from pddnet.synthetic.canvas import Canvas
from pddnet.synthetic.deformation import exponential, random_velocity
from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.implicit import Points, rotation
from pddnet.synthetic.organs import ORGAN_NAMES
from pddnet.synthetic.texture import scanner_noise
from pddnet.volume import LabelMap, Volume

_GENERATOR_VERSION = 1
_SLAB_VOXELS = 1 << 18
_LATTICE = ImageGeometry((44, 44, 52), (16.0, 16.0, 16.0), (-344.0, -344.0, -408.0))
_WAVES = (
    (110.0, 6.5),
    (55.0, 2.5),
)  # smoothness and root mean square displacement of the random variation, mm
_NOISE_HU = (9.0, 17.0)
_RANDOM = "random"


@dataclass(frozen=True)
class SyntheticPatient:
    """A CT nobody was scanned for.

    Args:
        ct: Hounsfield units.
        labels: the nine organs of `pddnet.synthetic.ORGAN_NAMES`, on the grid of `ct`.
        parameters: how it was made; `parameters["synthetic"]` is True.
    """

    ct: Volume
    labels: LabelMap
    parameters: Mapping[str, Any]


def synthetic_patient(
    seed: int,
    size: tuple[int, int, int] = (128, 108, 150),
    spacing_mm: float | tuple[float, float, float] = 3.0,
    contrast: Contrast | str = _RANDOM,
    variation: float = 1.0,
) -> SyntheticPatient:
    """Make up a patient: an abdominal CT from the lung bases to the hips, with nine organs labelled.

    One seed is one patient, however finely it is sampled; only the noise depends on the grid.

    Args:
        seed: 0 or more; the same seed gives the same patient, to the bit on the same machine.
        size: voxels (x, y, z). 384 x 320 x 448 mm hold the whole trunk; less crops it around its middle.
        spacing_mm: voxel size (x, y, z) or one for all axes.
        contrast: "non-contrast", "arterial", "portal-venous", a `Contrast`, or "random".
        variation: how much patients differ from the mean; 0 leaves noise, contrast and bowel contents random.

    Returns:
        CT and labels, the image centre at the LPS origin, directions along LPS.

    Raises:
        InputError: a negative seed or variation, an unknown contrast, a size or spacing that is not positive.
    """
    if seed < 0 or not 0 <= variation <= 2:
        raise InputError(
            f"seed is {seed} and variation {variation}; give a seed of 0 or more and a variation of 0 to 2"
        )
    geometry = _centred(size, spacing_mm)
    generator = torch.Generator().manual_seed(seed)
    phase = _phase(contrast, generator)
    habitus = Habitus.drawn(generator, variation)
    attenuation = ATTENUATION[phase].varied(generator, variation)
    coordinates = AnatomicalCoordinates(habitus, random_variation(generator, variation))
    anatomy = Anatomy.built(habitus, attenuation, generator)
    with _one_thread():
        hu, labels = _painted(geometry, coordinates, anatomy)
    low, high = _NOISE_HU
    noise_hu = low + (high - low) * float(torch.rand((), generator=generator))
    hu += noise_hu * scanner_noise(geometry.shape, geometry.spacing, generator)
    parameters = _described(seed, variation, phase, habitus, attenuation, noise_hu)
    return SyntheticPatient(
        Volume(hu.round_().clamp_(-1024, 3071), geometry), LabelMap(labels, geometry, ORGAN_NAMES), parameters
    )


class AnatomicalCoordinates:
    """Where in the anatomy each point of space lies: a smooth, invertible map of LPS mm to anatomical mm."""

    def __init__(self, habitus: Habitus, variation_lps: torch.Tensor) -> None:
        self._habitus = habitus
        self._rotation = rotation(habitus.nod, habitus.lean, habitus.turn)
        self._variation = variation_lps.permute(3, 0, 1, 2)[None]  # (1, 3, D, H, W)
        self._to_cube = _LATTICE.matrix(Frame.LPS, Frame.CUBE)

    def __call__(self, points_lps: torch.Tensor) -> Points:
        """Points (D, H, W, 3), mm LPS, to anatomical x, y, z, each (D, H, W), mm, float32."""
        points = points_lps.float()
        cube = transform_points_torch(self._to_cube, points)[None]
        moved = F.grid_sample(self._variation, cube, padding_mode="border", align_corners=True)[0]
        return self._posed(points[..., 0] + moved[0], points[..., 1] + moved[1], points[..., 2] + moved[2])

    def _posed(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Points:
        h, r = self._habitus, self._rotation
        x, y, z = x - h.left, y - h.back, z - h.up
        x, y, z = (x * r[0][a] + y * r[1][a] + z * r[2][a] for a in range(3))  # turned back
        x, y, z = x / h.body_width_size, y / h.body_depth_size, z / h.body_length_size
        x = x - h.scoliosis * torch.sin(z / 70.0)
        y = y + h.lordosis * torch.exp(-((z - 10.0) / 80.0).square())
        return x, y, z


def random_variation(generator: torch.Generator, variation: float) -> torch.Tensor:
    """The diffeomorphic part of the difference between patients: displacements on the lattice, mm LPS."""
    velocity = torch.zeros((*_LATTICE.shape, 3))
    for smoothness, millimetres in _WAVES:
        velocity += variation * millimetres * random_velocity(_LATTICE, smoothness, generator)
    return exponential(velocity, _LATTICE)


def _painted(
    geometry: ImageGeometry, coordinates: AnatomicalCoordinates, anatomy: Anatomy
) -> tuple[torch.Tensor, torch.Tensor]:
    hu = torch.empty(geometry.shape)
    labels = torch.empty(geometry.shape, dtype=torch.int32)
    softness = max(1.0, sum(geometry.spacing) / 3)
    for rows, points in slabs(geometry, _SLAB_VOXELS):
        canvas = Canvas(coordinates(points), softness)
        anatomy.paint(canvas)
        hu[rows], labels[rows] = canvas.hu, canvas.labels
    return hu, labels


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of small steps: threads gain a fifth, and lose tenfold where other programs keep the cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _centred(size: tuple[int, int, int], spacing_mm: float | tuple[float, float, float]) -> ImageGeometry:
    spacing = (spacing_mm,) * 3 if isinstance(spacing_mm, int | float) else spacing_mm
    grid = ImageGeometry(size, spacing)
    return replace(grid, origin=tuple(-grid.centre))


def _phase(contrast: Contrast | str, generator: torch.Generator) -> Contrast:
    # drawn even if not used, so that the same seed has the same shape in every phase
    drawn = list(Contrast)[int(torch.randint(len(Contrast), (), generator=generator))]
    if contrast == _RANDOM:
        return drawn
    try:
        return Contrast(contrast)
    except ValueError:
        choices = ", ".join(repr(phase.value) for phase in Contrast)
        raise InputError(f"contrast is {contrast!r}; choose {choices} or {_RANDOM!r}") from None


def _described(
    seed: int, variation: float, phase: Contrast, habitus: Habitus, attenuation: Attenuation, noise_hu: float
) -> Mapping[str, Any]:
    return {
        "synthetic": True,
        "description": "synthetic abdominal CT; no patient was scanned",
        "generator": "pddnet.synthetic",
        "generator_version": _GENERATOR_VERSION,
        "seed": seed,
        "variation": variation,
        "contrast": phase.value,
        "noise_hu": noise_hu,
        "habitus": asdict(habitus),
        "attenuation_hu": asdict(attenuation),
    }
