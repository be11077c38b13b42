"""The real programs, where they are: each finds a shift of a textured body on an oblique, anisotropic grid.

$PDDNET_PEERS_PYTHON, $PDDNET_PEERS_DEEDS, $PDDNET_PEERS_NIFTYREG and $PDDNET_PEERS_ELASTIX say where; see `Peers`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pddnet.baselines.external.all_methods import external_methods
from pddnet.baselines.external.program import ExternalMethod, Peers
from pddnet.geometry import Frame, ImageGeometry
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, resample

VOXELS = (2.0, -2.0, 1.0)  # whole ones: deedsBCV looks for no others


def body(grid: ImageGeometry) -> Volume:
    """Smooth texture in a ball, air around."""
    axes = [torch.linspace(-1, 1, n) for n in grid.shape]
    radius = sum(line**2 for line in torch.meshgrid(*axes, indexing="ij"))
    coarse = torch.rand(1, 1, *(n // 3 for n in grid.shape))
    texture = F.interpolate(coarse, size=grid.shape, mode="trilinear", align_corners=True)[0, 0]
    return Volume(200 * texture * (radius < 0.8), grid)


@pytest.mark.parametrize(
    "method", external_methods(Peers.of_environment()), ids=lambda method: str(method.name)
)
def test_a_shift_is_found(method: ExternalMethod, oblique_geometry: ImageGeometry, tmp_path: Path) -> None:
    if reason := method.absent():
        pytest.skip(reason)
    grid = replace(oblique_geometry, size=(56, 48, 40), spacing=(1.5, 2.0, 2.5))
    moving = body(grid)
    shift = grid.matrix(Frame.INDEX, Frame.LPS)[:3, :3] @ np.array(VOXELS)  # mm LPS
    run = method.register(resample(moving, grid, AffineTransform.translation(shift)), moving, tmp_path)
    middle = torch.tensor([[x, y, z] for x in (18.0, 28, 38) for y in (18.0, 24, 30) for z in (16.0, 20, 24)])
    points = torch.from_numpy(grid.to_lps(middle.numpy()))
    found = run.transform.apply(points) - points
    np.testing.assert_allclose(found.mean(0), shift, atol=0.8)
    assert float(np.abs(shift).min()) > 0.8  # a wrong sign along any axis would not pass
    assert run.seconds > 0
    assert run.peak_mb is None or run.peak_mb > 1
