"""The lattice engine as its formulas read: loops over voxels, channels, labels and neighbours; float64, numpy.

Slow on purpose. Nothing here is shared with the package. Arrays are (..., D, H, W), displacements hold (x, y, z).
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
NEIGHBOURS = [(axis, sign) for axis in range(3) for sign in (-1, 1)]


def held(image: Array, index: tuple[int, ...] | Array) -> float:
    """The voxel of an image (D, H, W) at whole numbers (z, y, x), the border repeated."""
    return float(image[tuple(min(max(int(i), 0), n - 1) for i, n in zip(index, image.shape, strict=True))])


def mind_ssc(image: Array, radius: int, dilation: int, stride: int) -> list[Array]:
    """The twelve channels, each (D / stride, H / stride, W / stride), in no particular order.

    A channel is a pair of the six neighbours of a voxel that do not lie opposite each other.
    """
    shape = [n // stride for n in image.shape]
    pairs = [(p, q) for p, q in product(NEIGHBOURS, NEIGHBOURS) if p < q and p[0] != q[0]]
    distances = np.zeros((len(pairs), *shape))
    taps = range(
        -radius, radius + stride
    )  # one more at stride 2, so that the patch is centred between voxels
    for place in np.ndindex(*shape):
        for number, pair in enumerate(pairs):
            first, second = np.zeros(3, int), np.zeros(3, int)
            for offset, (axis, sign) in zip((first, second), pair, strict=True):
                offset[axis] = sign * dilation
            for tap in product(taps, repeat=3):
                at = np.array(place) * stride + tap
                distances[(number, *place)] += (held(image, at + first) - held(image, at + second)) ** 2
    distances /= len(taps) ** 3
    distances -= distances.min(0)
    variance = distances.mean(0)
    variance = np.clip(variance, variance.mean() * 1e-3, variance.mean() * 1e3)
    return list(np.exp(-distances / variance))


def sample(values: Array, index: Array) -> Array:
    """Channels (C,) of (C, D, H, W) at a continuous index (z, y, x), linear, the border held."""
    place = [min(max(float(p), 0.0), n - 1.0) for p, n in zip(index, values.shape[1:], strict=True)]
    total = np.zeros(values.shape[0])
    for corner in product((0, 1), repeat=3):
        at = [int(np.floor(p)) + c for p, c in zip(place, corner, strict=True)]
        weight = np.prod([1 - abs(p - a) for p, a in zip(place, at, strict=True)])
        if weight > 0:
            total += weight * values[(slice(None), *at)]
    return total


def warp_on(
    image: Array, step: int, first: float, field: Array, field_step: int, field_first: float
) -> Array:
    """image(x + d(x)) for an image and a field on two lattices of the same voxels, d in voxels."""
    out = np.zeros_like(image)
    for place in np.ndindex(*image.shape[1:]):
        voxel = np.array(place) * step + first  # (z, y, x)
        moved = voxel + sample(field, (voxel - field_first) / field_step)[::-1]
        out[(slice(None), *place)] = sample(image, (moved - first) / step)
    return out


def labels(radius: int) -> Array:
    """Shifts (L, 3) as (x, y, z), z slowest."""
    line = range(-radius, radius + 1)
    return np.array([(x, y, z) for z in line for y in line for x in line], dtype=np.float64)


def dissimilarity(fixed: Array, moving: Array, stride: int, radius: int) -> Array:
    """Sum over channels of (f(k) - m(k + d))^2 for every stride-th cell k and shift d, the border repeated."""
    starts = [range(stride // 2, n, stride) for n in fixed.shape[1:]]
    shifts = labels(radius)
    out = np.zeros((*(len(line) for line in starts), len(shifts)))
    for point in np.ndindex(*out.shape[:3]):
        cell = np.array([line[i] for line, i in zip(starts, point, strict=True)])
        for number, shift in enumerate(shifts):
            for f, m in zip(fixed, moving, strict=True):
                out[(*point, number)] += (held(f, cell) - held(m, cell + shift[::-1])) ** 2
    return out


def box_mean(values: Array, weights: Array) -> Array:
    """Weighted mean of (D, H, W, N) over each point and the neighbours it has, corners included."""
    out = np.zeros_like(values)
    for point in np.ndindex(*weights.shape):
        total, share = np.zeros(values.shape[3]), 0.0
        for offset in product((-1, 0, 1), repeat=3):
            other = tuple(p + o for p, o in zip(point, offset, strict=True))
            if all(0 <= o < n for o, n in zip(other, weights.shape, strict=True)):
                total += weights[other] * values[other]
                share += weights[other]
        out[point] = total / share
    return out


def quadratic_mean_field(cost: Array, shifts: Array, weights: Array, couplings: list[float]) -> Array:
    """Least label, neighbours' mean; then least label plus coupling * |label - mean|^2, mean; and so on."""
    mean = np.zeros((*weights.shape, 3))
    for coupling in [0.0, *couplings]:
        chosen = np.zeros_like(mean)
        for point in np.ndindex(*weights.shape):
            total = [
                c + coupling * ((d - mean[point]) ** 2).sum()
                for c, d in zip(cost[point], shifts, strict=True)
            ]
            chosen[point] = shifts[int(np.argmin(total))]
        mean = box_mean(chosen, weights)
    return mean


def label_spread(
    cost: Array, shifts: Array, mean: Array, coupling: float, temperature: float
) -> tuple[Array, Array]:
    """Variance summed over the axes and entropy of exp(-(cost + coupling |d - mean|^2) / temperature) / sum."""
    variance, entropy = np.zeros(cost.shape[:3]), np.zeros(cost.shape[:3])
    for point in np.ndindex(*cost.shape[:3]):
        energy = np.array(
            [c + coupling * ((d - mean[point]) ** 2).sum() for c, d in zip(cost[point], shifts, strict=True)]
        )
        p = np.exp(-(energy - energy.min()) / temperature)
        p /= p.sum()
        expected = sum(weight * d for weight, d in zip(p, shifts, strict=True))
        variance[point] = sum(w * ((d - expected) ** 2).sum() for w, d in zip(p, shifts, strict=True))
        entropy[point] = -sum(w * np.log(w) for w in p if w > 0)
    return variance, entropy
