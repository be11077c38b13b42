"""The network's layers as the formulas read: loops over points, labels, channels and taps; float64, numpy.

Slow on purpose. Nothing here is shared with the package, not even the conventions' helper functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
ALPHAS = ("data_weight", "data_bias", "repeat_weight", "message_weight", "message_bias", "sharpness")


def points_of(shape: tuple[int, int, int], reach: tuple[float, float, float]) -> Array:
    """(D, H, W, 3) holding (x, y, z), evenly from -reach to reach; a single position is 0."""
    out = np.zeros((*shape, 3))
    for index in np.ndindex(*shape):
        for axis in range(3):  # array axis z, y, x
            n, r = shape[axis], reach[2 - axis]
            out[index][2 - axis] = -r + 2 * r * index[axis] / (n - 1) if n > 1 else 0.0
    return out


def sample(volume: Array, point: Array, padding: str) -> Array:
    """Channels (C,) of a volume (C, D, H, W) at a normalised (x, y, z), -1 and 1 at the outer voxel centres."""
    place = [(point[2 - axis] + 1) / 2 * (volume.shape[axis + 1] - 1) for axis in range(3)]  # z, y, x
    if padding == "border":
        place = [min(max(p, 0.0), n - 1.0) for p, n in zip(place, volume.shape[1:], strict=True)]
    low = [int(np.floor(p)) for p in place]
    total = np.zeros(volume.shape[0])
    for corner in product((0, 1), repeat=3):
        at = [n + c for n, c in zip(low, corner, strict=True)]
        weight = np.prod([p - n if c else 1 - (p - n) for p, n, c in zip(place, low, corner, strict=True)])
        if all(0 <= n < size for n, size in zip(at, volume.shape[1:], strict=True)):
            total += weight * volume[:, at[0], at[1], at[2]]
    return total


def dissimilarity(fixed: Array, moving: Array, points: Array, labels: Array) -> Array:
    """Sum over channels of (f_fixed(k) - f_moving(k + d))^2 for features (C, D, H, W)."""
    out = np.zeros((*points.shape[:3], *labels.shape[:3]))
    for k in np.ndindex(*points.shape[:3]):
        here = sample(fixed, points[k], "border")
        for d in np.ndindex(*labels.shape[:3]):
            there = sample(moving, points[k] + labels[d], "border")
            out[k + d] = sum((a - b) ** 2 for a, b in zip(here, there, strict=True))
    return out


def windows_of_three(volume: Array, reduce: str) -> Array:
    """Minimum or mean over all whole 3^3 windows of a volume: two shorter along each axis."""
    out = np.zeros([n - 2 for n in volume.shape])
    for index in np.ndindex(*out.shape):
        window = volume[tuple(slice(i, i + 3) for i in index)]
        out[index] = window.min() if reduce == "min" else window.mean()
    return out


def min_convolution(cost: Array) -> Array:
    """For each control point: pad 3 by repetition, minimum of 3^3, average of 3^3 twice."""
    out = np.zeros_like(cost)
    for k in np.ndindex(*cost.shape[:3]):
        lowest = windows_of_three(np.pad(cost[k], 3, mode="edge"), "min")
        out[k] = windows_of_three(windows_of_three(lowest, "mean"), "mean")
    return out


def mean_field(cost: Array) -> Array:
    """For each label: pad 2 by repetition, average of 3^3 twice, over the control points."""
    out = np.zeros_like(cost)
    for d in np.ndindex(*cost.shape[3:]):
        grid = np.pad(cost[(..., *d)], 2, mode="edge")
        out[(..., *d)] = windows_of_three(windows_of_three(grid, "mean"), "mean")
    return out


def softmax(cost: Array, sharpness: float) -> Array:
    """exp(-sharpness * cost) over its sum over the labels."""
    out = np.zeros_like(cost)
    for k in np.ndindex(*cost.shape[:3]):
        weight = np.exp(-sharpness * cost[k] - np.max(-sharpness * cost[k]))
        out[k] = weight / weight.sum()
    return out


def regularise(dissimilarities: Array, alpha: Mapping[str, float]) -> Array:
    """Two rounds of min-convolution and mean field with the six alphas, then the softmax."""
    data = alpha["data_weight"] * dissimilarities + alpha["data_bias"]
    message = mean_field(min_convolution(data))
    cost = alpha["repeat_weight"] * data + alpha["message_weight"] * message + alpha["message_bias"]
    return softmax(mean_field(min_convolution(cost)), alpha["sharpness"])


def moments(probabilities: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Mean (…, 3), variance (…, 3) and entropy (…) of each control point's displacement."""
    shape = probabilities.shape[:3]
    mean, variance, nats = np.zeros((*shape, 3)), np.zeros((*shape, 3)), np.zeros(shape)
    for k in np.ndindex(*shape):
        for d in np.ndindex(*labels.shape[:3]):
            mean[k] += probabilities[k + d] * labels[d]
        for d in np.ndindex(*labels.shape[:3]):
            variance[k] += probabilities[k + d] * (labels[d] - mean[k]) ** 2
            nats[k] -= probabilities[k + d] * np.log(probabilities[k + d])
    return mean, variance, nats


def upsample(displacement: Array, shape: tuple[int, int, int]) -> Array:
    """Displacements (Kd, Kh, Kw, 3) interpolated to the voxels of an image: (3, D, H, W)."""
    out = np.zeros((3, *shape))
    for index, point in zip(np.ndindex(*shape), points_of(shape, (1, 1, 1)).reshape(-1, 3), strict=True):
        out[(slice(None), *index)] = sample(np.moveaxis(displacement, 3, 0), point, "border")
    return out


def transfer(one_hot: Array, probabilities: Array, points: Array, labels: Array) -> Array:
    """One-hot labels (N, D, H, W) at all displaced positions, weighted by the probabilities: (N, K...)."""
    out = np.zeros((one_hot.shape[0], *points.shape[:3]))
    for k in np.ndindex(*points.shape[:3]):
        for d in np.ndindex(*labels.shape[:3]):
            out[(slice(None), *k)] += probabilities[k + d] * sample(one_hot, points[k] + labels[d], "border")
    return out


def convolution(volume: Array, weight: Array, stride: int, padding: int) -> Array:
    """(C, D, H, W) with weight (O, C, s, s, s), zeros beyond the border."""
    padded = np.pad(volume, [(0, 0)] + [(padding, padding)] * 3)
    size = weight.shape[2]
    shape = [(n - size) // stride + 1 for n in padded.shape[1:]]
    out = np.zeros((weight.shape[0], *shape))
    for z, y, x in np.ndindex(*shape):
        z0, y0, x0 = z * stride, y * stride, x * stride
        window = padded[:, z0 : z0 + size, y0 : y0 + size, x0 : x0 + size]
        out[:, z, y, x] = (weight * window).sum((1, 2, 3, 4))
    return out


def normalised_and_rectified(volume: Array, state: Mapping[str, Array], name: str) -> Array:
    """Batch normalisation by running statistics, then the positive part."""
    deviation = np.sqrt(state[f"{name}.running_var"] + 1e-5)
    scale = state[f"{name}.weight"] / deviation
    shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
    return np.maximum(volume * scale[:, None, None, None] + shift[:, None, None, None], 0)


def obelisk(image: Array, state: Mapping[str, Array], groups: int) -> Array:
    """Features of an image (D, H, W), the axes in the order the weights were trained on."""
    pooled = convolution(image[None], np.full((1, 1, 3, 3, 3), 1 / 27), 2, 1)
    edges = normalised_and_rectified(convolution(pooled, state["layer0.weight"], 2, 2), state, "batch0")
    first, second = state["offsets"]
    channels, count = edges.shape[0], first.shape[0]
    shape = [n // 3 for n in image.shape]
    sampled = np.zeros((channels * count, *shape))
    for index in np.ndindex(*shape):
        centre = np.array([(2 * index[a] + 1) / shape[a] - 1 for a in (2, 1, 0)])  # (x, y, z)
        for o in range(count):
            difference = sample(edges, centre + first[o], "zeros") - sample(
                edges, centre + second[o], "zeros"
            )
            for c in range(channels):
                sampled[(c * count + o, *index)] = difference[c]
    weight, parts = state["layer1.weight"], []
    for group, rows in zip(np.split(sampled, groups), np.split(weight, groups), strict=True):
        parts.append(convolution(group, rows, 1, 0))
    hidden = normalised_and_rectified(np.concatenate(parts), state, "batch1")
    hidden = normalised_and_rectified(convolution(hidden, state["layer2.weight"], 1, 1), state, "batch2")
    return convolution(hidden, state["layer3.weight"], 1, 0) + state["layer3.bias"][:, None, None, None]
