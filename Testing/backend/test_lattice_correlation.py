"""The dissimilarity volume on a lattice against loops over control points and shifts, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from backend.oracles import lattice as oracle
from pddnet import lattice_correlation as module
from pddnet.lattice_correlation import at_control_points, lattice_dissimilarity, lattice_labels

shapes = st.tuples(*[st.integers(2, 11)] * 3)


def features(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, *shape, dtype=dtype), torch.randn(2, *shape, dtype=dtype)


def by_both_tiles(
    fixed: torch.Tensor, moving: torch.Tensor, stride: int, radius: int
) -> tuple[torch.Tensor, torch.Tensor]:
    points = at_control_points(fixed, stride)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TILE", (4, 4, 4))
        patch.setattr(module, "_PRODUCT_ENTRIES", 1)  # one row of tiles at a time
        cubes = lattice_dissimilarity(points, moving, stride, radius)
        patch.setattr(module, "_TILE", (2, 4, 4))
        patch.setattr(module, "_PRODUCT_ENTRIES", 10**9)
        return cubes, lattice_dissimilarity(points, moving, stride, radius)


@examples(max_examples=12)
@given(st.tuples(*[st.integers(2, 6)] * 3), st.integers(1, 3), st.integers(1, 2))
def test_it_is_the_squared_difference_at_each_shift_from_each_control_point(
    shape: tuple[int, int, int], stride: int, radius: int
) -> None:
    fixed, moving = features(shape)
    expected = oracle.dissimilarity(fixed.numpy(), moving.numpy(), stride, radius)
    for found in by_both_tiles(fixed, moving, stride, radius):
        np.testing.assert_allclose(found, expected, atol=1e-10)


@examples(max_examples=60)
@given(shapes, st.integers(1, 4), st.integers(1, 4))
def test_tiles_of_any_shape_agree_where_shapes_are_no_multiples_of_them(
    shape: tuple[int, int, int], stride: int, radius: int
) -> None:
    fixed, moving = features(shape)
    if min(len(range(stride // 2, n, stride)) for n in shape) == 0:
        return
    cubes, flat = by_both_tiles(fixed, moving, stride, radius)
    torch.testing.assert_close(cubes, flat, atol=1e-9, rtol=1e-9)


def test_shifts_are_ordered_as_in_the_labels() -> None:
    np.testing.assert_array_equal(lattice_labels(2, torch.zeros((), dtype=torch.float64)), oracle.labels(2))


@pytest.mark.parametrize("shift", [(2, -1, 1), (0, 0, 2), (-2, 1, -1)])
@pytest.mark.parametrize("radius", [2, 3])
def test_the_least_dissimilar_label_is_the_shift_of_the_moving_features(
    shift: tuple[int, int, int], radius: int
) -> None:
    fixed, _ = features((10, 11, 12), torch.float32)
    moving = torch.roll(fixed, shift[::-1], (1, 2, 3))  # moving(k + shift) = fixed(k)
    cost = lattice_dissimilarity(at_control_points(fixed, 2), moving, 2, radius)[2:-2, 2:-2, 2:-2]
    found = lattice_labels(radius, cost)[cost.argmin(-1)]
    assert torch.equal(found, torch.tensor(shift).float().expand_as(found))
    assert not torch.equal(found, torch.tensor(shift[::-1]).float().expand_as(found))


def test_no_value_is_negative_though_large_features_cancel() -> None:
    fixed = 1000 + torch.rand(3, 12, 8, 8)
    cost = lattice_dissimilarity(fixed, fixed, 1, 2)
    assert cost.min() >= 0


@pytest.mark.parametrize("radius", [1, 2])
def test_the_features_are_not_changed(radius: int) -> None:
    fixed, moving = features((8, 9, 10), torch.float32)
    before = fixed.clone(), moving.clone()
    lattice_dissimilarity(at_control_points(fixed, 2), moving, 2, radius)
    assert torch.equal(fixed, before[0])
    assert torch.equal(moving, before[1])


@pytest.mark.parametrize("radius", [1, 2])
def test_a_caller_can_stop_between_blocks(radius: int) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    fixed, moving = features((24, 16, 8), torch.float32)
    with pytest.raises(KeyboardInterrupt):
        lattice_dissimilarity(at_control_points(fixed, 2), moving, 2, radius, stop)


def test_the_volume_is_contiguous_with_labels_last() -> None:
    for found in by_both_tiles(*features((9, 8, 7), torch.float32), 2, 1):
        assert found.shape == (4, 4, 3, 27)
        assert found.is_contiguous()


class _Storages(TorchDispatchMode):
    """The size in bytes of every storage that operations make, by its address."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            storage = out.untyped_storage()
            self.sizes[storage.data_ptr()] = max(storage.nbytes(), self.sizes.get(storage.data_ptr(), 0))
        return out


@pytest.mark.parametrize(("shape", "radius"), [((48, 48, 24), 3), ((46, 46, 22), 3), ((48, 48, 24), 2)])
def test_beside_the_volume_only_small_pieces_are_held(
    shape: tuple[int, int, int], radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed, moving = features(shape, torch.float32)
    monkeypatch.setattr(module, "_PRODUCT_ENTRIES", 1 << 16)
    with _Storages() as made:
        cost = lattice_dissimilarity(at_control_points(fixed, 2), moving, 2, radius)
    whole = cost.numel() * cost.element_size()
    largest, *others = sorted(made.sizes.values(), reverse=True)
    assert largest == whole
    assert others[0] < 0.3 * whole
