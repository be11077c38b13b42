"""Random textures that do not depend on the grid they are looked at on, and the scanner's noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pddnet.synthetic.implicit import Points

_PERIOD = 24  # nodes


class Texture:
    """Smooth random values in space: mean 0, standard deviation about 1, repeating every 24 wavelengths."""

    def __init__(self, generator: torch.Generator) -> None:
        values = torch.randn((1, 1, _PERIOD, _PERIOD, _PERIOD), generator=generator)
        self._nodes = F.pad(values, (0, 1) * 3, mode="circular") * 1.8  # interpolation takes away contrast

    def __call__(self, points: Points, wavelength: float | tuple[float, float, float]) -> torch.Tensor:
        """Values, -3 to 3, at points (x, y, z) in mm; `wavelength` in mm, one for all axes or one each."""
        lengths = (wavelength,) * 3 if isinstance(wavelength, int | float) else wavelength
        places = [torch.remainder(p / n, _PERIOD) for p, n in zip(points, lengths, strict=True)]
        cube = (torch.stack(places, -1) * (2 / _PERIOD) - 1).view(1, 1, 1, -1, 3)
        values = F.grid_sample(self._nodes, cube, padding_mode="border", align_corners=True)
        return values.view(points[0].shape).clamp_(-3, 3)


def scanner_noise(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], generator: torch.Generator
) -> torch.Tensor:
    """Noise (D, H, W), standard deviation 1, correlated over about a millimetre as a reconstruction's is."""
    noise = torch.randn(shape, generator=generator)
    for axis, step in zip((2, 1, 0), spacing, strict=True):
        share = 0.5 * 2.0 ** (-((step / 1.2) ** 2))  # of the neighbours: less for larger voxels
        noise = _blurred(noise, axis, share) / (1 + 2 * share**2) ** 0.5
    return noise


def _blurred(values: torch.Tensor, axis: int, share: float) -> torch.Tensor:
    return values + share * (values.roll(1, axis) + values.roll(-1, axis))
