"""Synthetic deformations: of the length asked for, free of folds, at rest on the border, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.awkward import random_geometry
from pddnet.errors import InputError
from pddnet.geometry import ImageGeometry
from pddnet.metrics import inverse_consistency_error, jacobian_determinant
from pddnet.points import slabs
from pddnet.synthetic import synthetic_deformation
from pddnet.synthetic.deformation import exponential
from pddnet.warp import DisplacementField

GRID = ImageGeometry((33, 27, 40), (4.0, 4.5, 3.5), (-60.0, 20.0, -300.0))


def lattice_points(lattice: ImageGeometry) -> torch.Tensor:
    return torch.cat([points for _, points in slabs(lattice)])


def interior(values: torch.Tensor, layers: int = 5) -> torch.Tensor:
    inside = slice(layers, -layers)
    return values[inside, inside, inside]


@pytest.mark.parametrize("magnitude", [3.0, 12.0, 20.0])
def test_the_longest_displacement_has_the_length_asked_for(magnitude: float) -> None:
    field = synthetic_deformation(GRID, seed=1, magnitude_mm=magnitude)
    assert float(field.vectors.norm(dim=-1).max()) == pytest.approx(magnitude, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_no_deformation_folds_and_all_deform(seed: int) -> None:
    determinant = jacobian_determinant(synthetic_deformation(GRID, seed, magnitude_mm=20.0)).data
    assert determinant.min() > 0.05
    assert determinant.std() > 0.1


def test_the_border_stays_where_it_is() -> None:
    field = synthetic_deformation(GRID, seed=3, magnitude_mm=15.0)
    length = field.vectors.norm(dim=-1)
    faces = [length[0], length[-1], length[:, 0], length[:, -1], length[:, :, 0], length[:, :, -1]]
    assert max(float(face.max()) for face in faces) < 3.0  # half a voxel from where they are 0
    assert float(interior(length).max()) > 14.0


def test_a_deformation_lies_on_any_grid_asked_for() -> None:
    grid = random_geometry(np.random.default_rng(5), 14, 24)
    field = synthetic_deformation(grid, seed=0, magnitude_mm=2.0, smoothness_mm=12.0)
    assert field.geometry == field.fixed_geometry == grid
    assert jacobian_determinant(field).data.min() > 0


def test_the_same_seed_gives_the_same_deformation_and_another_seed_another() -> None:
    first, again, other = (synthetic_deformation(GRID, seed).vectors for seed in (8, 8, 9))
    assert torch.equal(first, again)
    assert (first - other).norm(dim=-1).max() > 5


def test_no_magnitude_is_no_deformation() -> None:
    assert not synthetic_deformation(GRID, 0, magnitude_mm=0.0).vectors.any()


@pytest.mark.parametrize(("magnitude", "smoothness"), [(-1.0, 40.0), (float("nan"), 40.0), (5.0, 0.0)])
def test_impossible_lengths_are_refused(magnitude: float, smoothness: float) -> None:
    with pytest.raises(InputError, match="magnitude_mm is"):
        synthetic_deformation(GRID, 0, magnitude, smoothness)


def test_flowing_along_a_linear_velocity_is_its_matrix_exponential(oblique_geometry: ImageGeometry) -> None:
    lattice = ImageGeometry(
        (17, 19, 21), (3.0, 4.0, 2.0), oblique_geometry.origin, oblique_geometry.direction
    )
    rates = 0.1 * torch.tensor([[1.0, 2.0, 0.0], [-1.5, 0.5, 1.0], [0.3, 0.0, -1.0]], dtype=torch.float64)
    from_centre = lattice_points(lattice) - torch.as_tensor(lattice.centre)
    flowed = exponential((from_centre @ rates.T).float(), lattice)
    expected = from_centre @ (torch.linalg.matrix_exp(rates) - torch.eye(3)).T
    assert (interior(flowed) - interior(expected)).abs().max() < 0.02
    first_order = from_centre @ rates.T  # no integration at all is visibly wrong
    assert (interior(first_order) - interior(expected)).abs().max() > 0.2


def test_flowing_back_undoes_flowing_forth() -> None:
    lattice = ImageGeometry((24, 24, 24), (5.0, 5.0, 5.0))
    velocity = 6.0 * torch.sin(lattice_points(lattice) / 18).float().flip(-1)
    forth, back = (DisplacementField(exponential(sign * velocity, lattice), lattice) for sign in (1, -1))
    assert interior(inverse_consistency_error(forth, back).data, 4).max() < 0.5
    assert interior(inverse_consistency_error(forth, forth).data, 4).max() > 5.0
