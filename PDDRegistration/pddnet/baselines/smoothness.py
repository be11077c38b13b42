"""How rough a dense displacement is, by finite differences: bending energy and squared gradients.

Displacements are (1, 3, D, H, W) in voxels; the derivatives along x, y, z are central differences, taken where all that
they need lies in the grid.
"""

from __future__ import annotations

import torch

_AXES = (4, 3, 2)  # x, y, z


def gradient_energy(displacement: torch.Tensor) -> torch.Tensor:
    """Mean of u_x^2 + u_y^2 + u_z^2, over components and voxels; needs 3 voxels along each axis."""
    return torch.stack([_inner(_slope(displacement, a), a).square().mean() for a in _AXES]).sum()


def bending_energy(displacement: torch.Tensor) -> torch.Tensor:
    """Mean of u_xx^2 + u_yy^2 + u_zz^2 + 2 (u_xy^2 + u_yz^2 + u_xz^2), over components and voxels.

    Zero for an affine map. Needs 3 voxels along each axis.
    """
    total = displacement.new_zeros(())
    for number, a in enumerate(_AXES):
        total = total + _inner(_curvature(displacement, a), a).square().mean()
        for b in _AXES[:number]:
            mixed = _slope(_slope(displacement, a), b)
            axis = next(axis for axis in _AXES if axis not in (a, b))
            total = total + 2 * mixed.narrow(axis, 1, mixed.shape[axis] - 2).square().mean()
    return total


def _slope(values: torch.Tensor, axis: int) -> torch.Tensor:
    n = values.shape[axis]
    return (values.narrow(axis, 2, n - 2) - values.narrow(axis, 0, n - 2)) / 2


def _curvature(values: torch.Tensor, axis: int) -> torch.Tensor:
    n = values.shape[axis]
    outer = values.narrow(axis, 0, n - 2) + values.narrow(axis, 2, n - 2)
    return outer - 2 * values.narrow(axis, 1, n - 2)


def _inner(derivative: torch.Tensor, along: int) -> torch.Tensor:
    """Without the border along the other two axes, which a derivative along one axis still has."""
    for axis in _AXES:
        if axis != along:
            derivative = derivative.narrow(axis, 1, derivative.shape[axis] - 2)
    return derivative
