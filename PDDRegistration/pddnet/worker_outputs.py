"""What comes of a registration in the worker: images and labels on the fixed grid, the inverse, a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pddnet.inversion import inverse_grid, invert, residual_without_inverse
from pddnet.job import (
    RESULT,
    FieldFile,
    ImageFile,
    RegisterFiles,
    WarpedSegmentation,
    save_array,
    save_field,
)
from pddnet.metrics import FieldQuality, inverse_residual
from pddnet.points import slabs
from pddnet.progress import Reporter
from pddnet.quality_report import Judge, NamedMask, Report, WarpedSegment, landmark_errors
from pddnet.registration import RegistrationResult
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, resample, sampled_on
from pddnet.worker_inputs import LoadedSegmentation, RegistrationInputs
from pddnet.world import sequence

_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True)
class Outputs:
    """What comes of one registration. All images pass through the very field that is returned."""

    inputs: RegistrationInputs
    found: RegistrationResult
    reporter: Reporter

    def written(self, folder: Path, with_inverse: bool) -> tuple[RegisterFiles, Report]:
        """Make everything, and write it at the end."""
        inputs, reporter, fixed = self.inputs, self.reporter, self.inputs.fixed.geometry
        with reporter.stage("warp", "bringing the moving scan onto the fixed one"):
            displacement = inputs.frames.displacement(self.found.displacement, fixed)
            warped = self._warped_scan(displacement)
        with reporter.stage("segmentations", "bringing the segmentations over"):
            segmentations = [self._warped(item, displacement) for item in inputs.segmentations]
        with reporter.stage("jacobian", "local changes of volume and uncertainty"):
            determinant = inputs.frames.jacobian(displacement, fixed)
            uncertainty = sampled_on(self.found.uncertainty.std_mm, fixed, reporter.tick)
        with reporter.stage("inverse", "inverting the transform"):
            inverse, residual = self._inverse(displacement, with_inverse)
        with reporter.stage("quality", "measuring the quality"):
            judge = Judge(
                fixed,
                displacement,
                inputs.frames.fixed_to_world,
                determinant,
                uncertainty,
                self._references(),
            )
            segments = judge.judged(self._segments(judge, segmentations), reporter.tick)
            lengths = self._lengths(displacement)
            report = _summary(lengths, determinant, uncertainty, residual)
            report |= {"landmarks_mm": self._landmarks(displacement), "segments": segments}
        with reporter.stage("write", "handing over the results"):
            writer = _Writer(folder)
            files = RegisterFiles(
                displacement=writer.field("displacement", displacement),
                inverse=writer.field("inverse", inverse) if inverse else None,
                warped=writer.image("warped", warped, inputs.moving_dtype),
                segmentations=tuple(
                    writer.segmentation(f"segmentation-{n}", layers, item)
                    for n, (layers, item) in enumerate(zip(segmentations, inputs.segmentations, strict=True))
                ),
                jacobian=writer.image("jacobian", determinant),
                uncertainty=writer.image("uncertainty", uncertainty),
            )
        return files, report

    def _through(
        self, displacement: SpatialTransform | None, from_world: SpatialTransform | None
    ) -> SpatialTransform:
        """From the fixed scan's frame to one in the moving world, with the registration or without."""
        to_world = self.inputs.frames.fixed_to_world
        return sequence(to_world, displacement, from_world) or AffineTransform.identity()

    def _warped_scan(self, displacement: DisplacementField) -> Volume:
        through = self._through(displacement, self.inputs.frames.world_to_moving)
        return resample(self.inputs.moving, self.inputs.fixed.geometry, through, self.reporter.tick)

    def _warped(
        self, segmentation: LoadedSegmentation, displacement: DisplacementField | None
    ) -> list[LabelMap]:
        through = self._through(displacement, segmentation.from_world)
        layers = []
        for layer in segmentation.layers:
            grid, tick = self.inputs.fixed.geometry, self.reporter.tick
            layers.append(resample(layer.labels, grid, through, tick))
        return layers

    def _inverse(
        self, displacement: DisplacementField, wanted: bool
    ) -> tuple[DisplacementField | None, torch.Tensor]:
        """The inverse if it is wanted, and in any case its residual (N,), mm."""
        moving = self.inputs.frames.moving_grid(self.inputs.moving.geometry)
        grid = inverse_grid(displacement, moving)
        if not wanted:
            return None, residual_without_inverse(displacement, grid, self.reporter.tick)
        inverse, _ = invert(displacement, grid, self.reporter.tick)
        return inverse, inverse_residual(inverse, displacement).data.flatten()

    def _lengths(self, displacement: DisplacementField) -> torch.Tensor:
        """Lengths of the displacements (N,), mm, over the fixed scan, about as densely as the field's own."""
        grid, finest = self.inputs.fixed.geometry, min(displacement.geometry.spacing)
        grid = grid.coarsened([max(1, int(finest / spacing)) for spacing in grid.spacing])
        to_world = self.inputs.frames.fixed_to_world
        lengths = []
        for _, points in slabs(grid):
            world = to_world.apply(points) if to_world else points
            lengths.append(displacement.at(world).norm(dim=-1).flatten())
        return torch.cat(lengths)

    def _references(self) -> list[NamedMask]:
        given = self.inputs.fixed_segmentation
        return _named(given, self._warped(given, None)) if given else []

    def _segments(self, judge: Judge, warped: list[list[LabelMap]]) -> Iterator[WarpedSegment]:
        for item, layers in zip(self.inputs.segmentations, warped, strict=True):
            comparable = any(judge.reference(segment.name) for segment in item.segments)
            before = _named(item, self._warped(item, None)) if comparable else [None] * len(item.segments)
            seen: Counter[str] = Counter()
            for earlier, after in zip(before, _named(item, layers), strict=True):
                yield WarpedSegment(item.name, earlier, after, seen[after.key])
                seen[after.key] += 1

    def _landmarks(self, displacement: DisplacementField) -> dict[str, list[float]] | None:
        return landmark_errors(*self.inputs.landmarks, displacement) if self.inputs.landmarks else None


def _named(segmentation: LoadedSegmentation, layers: list[LabelMap]) -> list[NamedMask]:
    return [NamedMask(s.name, layers[s.layer].data, s.value) for s in segmentation.segments]


def _summary(
    lengths: torch.Tensor, determinant: Volume, uncertainty: Volume, residual: torch.Tensor
) -> Report:
    quality = FieldQuality.of(determinant)
    return {
        "displacement_mm": {"mean": float(lengths.mean()), "max": float(lengths.max())},
        "folding_percent": 100 * quality.folding_fraction,
        "jacobian": {
            "min": quality.smallest_determinant,
            "max": float(determinant.data.max()),
            "std": quality.jacobian_std,
        },
        "uncertainty_mm": {"mean": uncertainty.mean(), "max": float(uncertainty.data.max())},
        "inverse_residual_mm": {"mean": float(residual.mean()), "max": float(residual.max())},
    }


def _in_type(values: torch.Tensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values in the type they came in: rounded and kept within its range where it holds whole numbers."""
    array = values.numpy()
    if dtype.kind in "iu" and array.dtype.kind == "f":
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array.astype(np.float64)), limits.min, limits.max)
    if dtype.kind == "b":
        array = array > 0.5
    return np.asarray(array.astype(dtype))


@dataclass(frozen=True)
class _Writer:
    """Writes arrays into `result`."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / RESULT).mkdir(exist_ok=True)

    def image(self, name: str, image: Volume | LabelMap, dtype: np.dtype[Any] = _FLOAT) -> ImageFile:
        return save_array(self.folder, f"{RESULT}/{name}.npy", _in_type(image.data, dtype), image.geometry)

    def segmentation(self, name: str, layers: list[LabelMap], sent: LoadedSegmentation) -> WarpedSegmentation:
        pairs = enumerate(zip(layers, sent.layers, strict=True))
        return WarpedSegmentation(
            tuple(self.image(f"{name}-layer-{n}", labels, layer.dtype) for n, (labels, layer) in pairs)
        )

    def field(self, name: str, field: DisplacementField) -> FieldFile:
        return save_field(self.folder, f"{RESULT}/{name}.npy", field.vectors.numpy(), field.geometry)
