"""Fields on lattices: interpolation, warping, composition, symmetry, extension, folds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backend.oracles import lattice as oracle
from pddnet import lattice as module
from pddnet.lattice import (
    Lattice,
    compose,
    extended,
    interpolate,
    sample_displaced,
    smallest_determinant,
    symmetrised,
    unfolded,
    warp_on,
)

VOXELS = (16, 12, 20)
UNIT = Lattice(VOXELS, 1, 0.0)
HALF = Lattice.of_cells(VOXELS, 2)


def places(lattice: Lattice) -> torch.Tensor:
    """Where the points of a lattice lie, working voxels, (3, D, H, W) as (x, y, z)."""
    lines = [torch.arange(n, dtype=torch.float64) * lattice.step + lattice.first for n in lattice.shape]
    return torch.stack(torch.meshgrid(*lines, indexing="ij")).flip(0)


def smooth(shape: tuple[int, int, int], size: float = 1.5, channels: int = 3) -> torch.Tensor:
    """A random field whose neighbours differ little, about `size` large."""
    noise = torch.randn(1, channels, *(n // 4 + 2 for n in shape), dtype=torch.float64)
    return size * F.interpolate(noise, shape, mode="trilinear", align_corners=True)[0]


def affine_field(matrix: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """Displacements A x on a lattice."""
    return torch.einsum("rc,cdhw->rdhw", matrix, places(lattice))


def inverse_error(u: torch.Tensor, v: torch.Tensor, lattice: Lattice) -> float:
    """Mean of |u(x) + v(x + u(x))| inside."""
    return float(compose(u, v, lattice)[:, 2:-2, 2:-2, 2:-2].norm(dim=0).mean())


# --- lattices and interpolation


@pytest.mark.parametrize("step", [1, 2, 4])
def test_cells_fill_the_grid_and_are_centred_on_it(step: int) -> None:
    points = places(Lattice.of_cells(VOXELS, step))
    for line, n in zip(points.flatten(1), reversed(VOXELS), strict=True):
        assert line.min() == (step - 1) / 2
        assert (line.min() + line.max()) / 2 == (n - 1) / 2


@pytest.mark.parametrize("step", [1, 2, 4])
def test_two_cells_along_each_axis_make_one_of_the_halved_lattice(step: int) -> None:
    lattice = Lattice.of_cells(VOXELS, step)
    halved = lattice.halved()
    d, h, w = halved.shape
    pairs = places(lattice)[:, : 2 * d, : 2 * h, : 2 * w].reshape(3, d, 2, h, 2, w, 2)
    assert torch.equal(places(halved), pairs.mean((2, 4, 6)))
    assert halved == Lattice.of_cells(VOXELS, 2 * step)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_nth_point_is_a_point_of_the_lattice(stride: int) -> None:
    thinned = places(HALF.every(stride))
    start = stride // 2
    assert torch.equal(thinned, places(HALF)[:, start::stride, start::stride, start::stride])


@pytest.mark.parametrize(
    "source", [UNIT, HALF, Lattice.of_cells(VOXELS, 4), Lattice.of_cells(VOXELS, 2).every(2)]
)
@pytest.mark.parametrize("target", [UNIT, HALF])
def test_interpolation_is_exact_on_linear_fields_and_holds_the_border(
    source: Lattice, target: Lattice
) -> None:
    matrix = torch.randn(3, 3, dtype=torch.float64)
    low, high = (getattr(places(source).flatten(1), end)(1)[0] for end in ("min", "max"))
    held = places(target).clamp(low.view(3, 1, 1, 1), high.view(3, 1, 1, 1))
    expected = torch.einsum("rc,cdhw->rdhw", matrix, held)
    found = interpolate(affine_field(matrix, source), source, target)
    torch.testing.assert_close(found, expected)
    assert (interpolate(affine_field(matrix.T, source), source, target) - expected).abs().max() > 0.1


def test_interpolation_to_the_same_lattice_changes_nothing() -> None:
    values = torch.randn(2, *HALF.shape)
    torch.testing.assert_close(interpolate(values, HALF, HALF), values)


# --- warping


@pytest.mark.parametrize("field_step", [1, 2, 4])
@pytest.mark.parametrize("step", [1, 2])
def test_warping_agrees_with_a_loop_over_voxels_whatever_the_slabs(
    step: int, field_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = (12, 8, 4)
    lattice, field = Lattice.of_cells(voxels, step), Lattice.of_cells(voxels, field_step)
    image = torch.randn(2, *lattice.shape, dtype=torch.float64)
    displacement = 2 * torch.randn(3, *field.shape, dtype=torch.float64)
    expected = oracle.warp_on(
        image.numpy(), step, lattice.first, displacement.numpy(), field_step, field.first
    )
    plane = lattice.shape[1] * lattice.shape[2]
    for slab_planes in (1, 5, 100):  # 5 does not divide the depth
        monkeypatch.setattr(module, "_SLAB_POINTS", slab_planes * plane)
        calls: list[None] = []
        found = warp_on(image, lattice, displacement, field, lambda seen=calls: seen.append(None))
        np.testing.assert_allclose(found, expected, atol=1e-10)
        assert calls
    assert (warp_on(image, lattice, -displacement, field) - torch.from_numpy(expected)).abs().max() > 0.1


def test_what_the_hook_between_slabs_raises_ends_the_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_SLAB_POINTS", 1)
    with pytest.raises(KeyboardInterrupt):
        warp_on(torch.zeros(1, *VOXELS), UNIT, torch.zeros(3, *HALF.shape), HALF, stop)


def whole_steps(within: tuple[int, int, int]) -> torch.Tensor:
    """Random whole displacements that do not leave the lattice."""
    here = places(Lattice(within, 1, 0.0))
    size = torch.tensor(within[::-1], dtype=torch.float64).view(3, 1, 1, 1)
    return (here + torch.randint(-3, 4, here.shape)).clamp(min=0).minimum(size - 1) - here


def test_warping_by_a_composition_equals_warping_twice() -> None:
    update, before = whole_steps(VOXELS), whole_steps(VOXELS)
    image = torch.randn(1, *VOXELS, dtype=torch.float64)
    twice = sample_displaced(sample_displaced(image, UNIT, before), UNIT, update)
    torch.testing.assert_close(sample_displaced(image, UNIT, compose(update, before, UNIT)), twice)
    swapped = sample_displaced(image, UNIT, compose(before, update, UNIT))
    assert (swapped - twice).abs().max() > 0.5


def test_composing_affine_fields_multiplies_their_matrices() -> None:
    a, b = (0.02 * torch.randn(3, 3, dtype=torch.float64) for _ in range(2))
    composed = compose(affine_field(a, HALF), affine_field(b, HALF), HALF)
    one = torch.eye(3, dtype=torch.float64)
    expected = affine_field((one + b) @ (one + a) - one, HALF)
    inside = (slice(None), *(slice(2, -2),) * 3)
    torch.testing.assert_close(composed[inside], expected[inside])


# --- symmetry


@pytest.mark.parametrize(("pooled_by", "left"), [(1, 0.25), (2, 0.5)])
def test_symmetrised_fields_are_more_nearly_inverse(pooled_by: int, left: float) -> None:
    shift = torch.tensor([2.0, -1.0, 1.5], dtype=torch.float64).view(3, 1, 1, 1)
    forward, backward = shift + smooth(HALF.shape), -shift + smooth(HALF.shape)
    u, v = symmetrised(forward, backward, HALF, pooled_by)
    for pair, before in (((u, v), (forward, backward)), ((v, u), (backward, forward))):
        assert inverse_error(*pair, HALF) < left * inverse_error(*before, HALF)


def test_symmetrising_treats_both_directions_alike() -> None:
    forward, backward = smooth(HALF.shape), smooth(HALF.shape)
    u, v = symmetrised(forward, backward, HALF, 2)
    swapped = symmetrised(backward, forward, HALF, 2)
    torch.testing.assert_close((v, u), swapped)


@pytest.mark.parametrize("pooled_by", [1, 2])
def test_exact_inverses_are_left_as_they_are(pooled_by: int) -> None:
    shift = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64).view(3, 1, 1, 1).expand(3, *HALF.shape)
    u, v = symmetrised(shift, -shift, HALF, pooled_by)
    torch.testing.assert_close((u, v), (shift, -shift))


def test_detail_finer_than_the_pooled_lattice_stays() -> None:
    shift = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64).view(3, 1, 1, 1).expand(3, *HALF.shape)
    sign = torch.cos(math.pi * (places(HALF).sum(0) - 1.5) / 2)  # alternates: its mean over 2^3 points is 0
    detailed = shift + 0.3 * sign
    assert not torch.equal(detailed, shift)
    u, _ = symmetrised(detailed, -shift, HALF, 2)
    torch.testing.assert_close(u, detailed)


# --- extension


def half_known(shape: tuple[int, int, int] = (9, 14, 11)) -> torch.Tensor:
    confidence = torch.zeros(1, *shape)
    confidence[..., : shape[2] // 2] = 1
    return confidence


def test_extension_keeps_what_is_certain() -> None:
    values = 5 + torch.randn(3, 9, 14, 11)
    found = extended(values, half_known(), 0.02)
    known = half_known().expand_as(values) > 0
    assert (found - values)[known].abs().max() < 0.15  # 0.02 of a difference from the mean of a few units
    assert (extended(values, half_known(), 1.0) - values)[known].abs().max() > 0.5


def test_extension_does_not_look_at_values_without_confidence() -> None:
    values, confidence = torch.randn(3, 9, 14, 11), half_known()
    wild = torch.where(confidence > 0, values, torch.tensor(1e6))
    torch.testing.assert_close(extended(wild, confidence, 0.02), extended(values, confidence, 0.02))


def test_extension_fills_smoothly_between_the_values_around() -> None:
    values = smooth((9, 14, 11)).float()
    found = extended(values, half_known(), 0.02)
    known = half_known().expand_as(values) > 0
    assert found.max() <= values[known].max() + 1e-5
    assert found.min() >= values[known].min() - 1e-5
    filled = found[..., 11 // 2 :]
    assert filled.diff(dim=3).abs().max() < 0.5 * values.diff(dim=3).abs().max() + 0.1
    assert filled.diff(dim=3).abs().sum() > 0


@pytest.mark.parametrize("shape", [(9, 14, 11), (1, 2, 16), (2, 2, 2), (1, 1, 1)])
def test_a_constant_stays_constant_on_any_shape(shape: tuple[int, int, int]) -> None:
    values, confidence = torch.full((3, *shape), 7.0), torch.rand(1, *shape)
    torch.testing.assert_close(extended(values, confidence, 0.02), values, rtol=1e-4, atol=1e-4)


def test_where_nothing_is_certain_nothing_moves() -> None:
    found = extended(torch.randn(3, 5, 6, 7), torch.zeros(1, 5, 6, 7), 0.02)
    assert torch.equal(found, torch.zeros_like(found))


# --- folds


@pytest.mark.parametrize("step", [1, 2])
def test_the_smallest_determinant_of_an_affine_field_is_its_determinant(step: int) -> None:
    matrix = 0.3 * torch.randn(3, 3, dtype=torch.float64)
    found = smallest_determinant(affine_field(matrix, Lattice((4, 5, 6), step, 0.0)), step)
    expected = torch.linalg.det(torch.eye(3, dtype=torch.float64) + matrix)
    assert found.shape == (4, 5, 6)
    torch.testing.assert_close(found, expected.expand_as(found))


def test_the_smallest_determinant_is_the_least_over_the_eight_cells_of_a_point() -> None:
    field = 0.3 * torch.randn(3, 3, 4, 3, dtype=torch.float64)
    found = smallest_determinant(field, 2)
    for z, y, x in np.ndindex(*field.shape[1:]):
        least = math.inf
        for corner in np.ndindex(2, 2, 2):
            cell, columns = [0, 0, 0], []
            for axis, (at, ahead) in enumerate(zip((z, y, x), corner, strict=True)):
                cell[axis] = min(max(at - 1 + ahead, 0), field.shape[axis + 1] - 2)
            for axis in (2, 1, 0):  # x, y, z
                low, high = [z, y, x], [z, y, x]
                low[axis], high[axis] = cell[axis], cell[axis] + 1
                columns.append((field[(slice(None), *high)] - field[(slice(None), *low)]) / 2)
            jacobian = torch.eye(3, dtype=torch.float64) + torch.stack(columns, 1)
            least = min(least, float(torch.linalg.det(jacobian)))
        assert float(found[z, y, x]) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_fold_between_two_points_is_seen_though_central_differences_miss_it(axis: int) -> None:
    field = torch.zeros(3, 7, 7, 7)
    field[axis].select(2 - axis, 3)[:] = 2.4  # 1.2 steps forward: past the next point
    slope = torch.gradient(field[axis], spacing=2.0, dim=2 - axis)[0]
    assert (1 + slope).min() > 0.3
    assert smallest_determinant(field, 2).min() == pytest.approx(-0.2, abs=1e-6)


@pytest.mark.parametrize("size", [1.0, 3.0, 10.0])
def test_unfolding_leaves_no_fold(size: float) -> None:
    field = size * torch.randn(3, 12, 10, 14)
    assert smallest_determinant(field, 2).min() < 0
    assert smallest_determinant(unfolded(field, 2), 2).min() > 0


def test_unfolding_does_not_touch_a_field_without_folds() -> None:
    field = smooth((12, 10, 14), 0.5).float()
    assert smallest_determinant(field, 2).min() > 0.05
    assert torch.equal(unfolded(field, 2), field)


def test_unfolding_changes_only_what_is_near_a_fold_and_not_its_argument() -> None:
    field = smooth((12, 10, 24), 0.5).float()
    field[:, 5, 5, 4] += torch.tensor([4.0, 4.0, 4.0])
    before = field.clone()
    found = unfolded(field, 2)
    assert torch.equal(field, before)
    assert smallest_determinant(found, 2).min() > 0
    assert not torch.equal(found[..., :12], field[..., :12])
    assert torch.equal(found[..., 14:], field[..., 14:])
