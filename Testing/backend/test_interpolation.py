"""Features at points: matrices along the axes do what sampling does."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pddnet.interpolation import interpolation_matrix, lattice_axes, resampled, sample_at


@given(st.integers(1, 6), st.lists(st.floats(-2, 2), min_size=1, max_size=5))
def test_an_interpolation_matrix_does_what_sampling_does(size: int, positions: list[float]) -> None:
    values = torch.randn(size, dtype=torch.float64)
    places = torch.tensor(positions, dtype=torch.float64)
    xyz = torch.stack((places, torch.zeros_like(places), torch.zeros_like(places)), -1)[None, None]
    sampled = sample_at(values[None, None, None, None], xyz)[0, 0, 0]
    torch.testing.assert_close(interpolation_matrix(places, size) @ values, sampled, rtol=0, atol=1e-12)


def test_features_on_a_product_grid_are_those_sampled_at_its_points() -> None:
    features = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    axes = [2.4 * torch.rand(count, dtype=torch.float64) - 1.2 for count in (3, 2, 4)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack((x, y, z), -1)
    found = resampled(features, axes)
    torch.testing.assert_close(found, sample_at(features[None], points))
    assert not torch.allclose(found, sample_at(features[None], points.flip(-1)))
    recovered = lattice_axes(points)
    assert recovered is not None
    assert all(torch.equal(one, other) for one, other in zip(recovered, axes, strict=True))
    assert lattice_axes(points + torch.rand_like(points)) is None
