"""`register`: from two scans of any geometry to a displacement field in mm, with its uncertainty."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from pddnet.config import Preset, load_preset
from pddnet.devices import resolve_device
from pddnet.errors import InputError
from pddnet.estimate import estimate_peak_memory_mb
from pddnet.geometry import ImageGeometry
from pddnet.global_alignment import Alignment, Candidate, CoarseScans, align_globally
from pddnet.grids import coarse_grids
from pddnet.inversion import invert
from pddnet.lattice import unfolded
from pddnet.level_scan import FIELD_STEP, LevelScan
from pddnet.levels import FieldPair, LevelSettings, fitted_to, run_level
from pddnet.memory import peak_memory_mb
from pddnet.placed_scans import PlacedScan
from pddnet.plan import as_affine, check_memory, stage_costs, working_grid
from pddnet.preprocessing import (
    Scaling,
    ScanSource,
    WorkingScan,
    body_window,
    check_mask,
    check_overlap,
    check_scan,
    resolved,
)
from pddnet.progress import Progress, Reporter
from pddnet.published import network_of, run_published_levels
from pddnet.refinement import refined
from pddnet.results import displacement_in_mm, uncertainty_in_mm
from pddnet.uncertainty import Uncertainty, measured_levels
from pddnet.volume import LabelMap, Volume
from pddnet.warp import AffineTransform, DisplacementField, SpatialTransform, chained

__all__ = ["Progress", "RegistrationResult", "estimate_peak_memory_mb", "register", "resolve_device"]

InitialTransform = SpatialTransform | Literal["centres"]


@dataclass(frozen=True)
class RegistrationResult:
    """What a registration found.

    Args:
        displacement: fixed point -> moving point, mm, LPS, on a lattice of about twice the working spacing that covers
            the fixed scan; `displacement.warp(moving)` lies on the fixed scan's grid.
        uncertainty: standard deviation (mm) and entropy (nats) of the displacement, on the same lattice.
        starts: the affine starts that were judged, the one used first; empty without a global stage.
        warnings: sentences for the user, such as that a scan seems to lie upside down.
        seconds, stage_seconds: wall time, in all and by stage.
        peak_memory_mb: the largest memory this process has held so far.
        preset, device: what it ran with.
    """

    displacement: DisplacementField
    uncertainty: Uncertainty
    starts: tuple[Candidate, ...]
    warnings: tuple[str, ...]
    seconds: float
    stage_seconds: dict[str, float]
    peak_memory_mb: float
    preset: str
    device: str

    def inverse(self, moving: ImageGeometry) -> tuple[DisplacementField, Volume]:
        """Moving point -> fixed point on a grid of the moving space, and its residual in mm; see `invert`."""
        return invert(self.displacement, moving)


@dataclass(frozen=True)
class _Job:
    """The checked arguments of one registration."""

    fixed: ScanSource
    moving: ScanSource
    start: SpatialTransform
    given_start: bool
    preset: Preset
    device: torch.device

    def fixed_on(self, grid: ImageGeometry, tick: Callable[[], None]) -> WorkingScan:
        """The fixed scan on a grid of its space."""
        return self.fixed.on(grid, AffineTransform.identity(), tick)

    def moving_on(
        self, grid: ImageGeometry, start: SpatialTransform, tick: Callable[[], None]
    ) -> WorkingScan:
        """The moving scan seen through a transform from a grid of the fixed space."""
        return self.moving.on(grid, start, tick)


@torch.no_grad()
def register(
    fixed: Volume,
    moving: Volume,
    *,
    preset: str | Path | Preset = "generic",
    device: str = "auto",
    fixed_mask: LabelMap | None = None,
    moving_mask: LabelMap | None = None,
    initial_transform: InitialTransform | None = None,
    weights: str | Path | None = None,
    global_stage: bool | None = None,
    memory_limit_mb: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RegistrationResult:
    """Find the deformable transform that takes points of `fixed` to points of `moving`.

    Args:
        fixed, moving: scans of any geometry; they are not changed.
        preset: a name from `available_presets()`, a TOML file, or a `Preset`.
        device: "auto" (CUDA where there is a GPU), "cpu", "cuda" or "cuda:N".
        fixed_mask, moving_mask: on their scan's grid; control points outside do not pull.
        initial_transform: fixed -> moving, mm LPS, or "centres" to put the fields of view onto each other.
        weights: file or name of network weights instead of the preset's.
        global_stage: True or False to run or skip the global stage; None as the preset says.
        memory_limit_mb: refuse to start above this estimate of the peak memory; None takes what is free.
        on_progress: told about each stage.
        cancelled: asked between pieces of work; once it says True, `RegistrationCancelled` is raised.

    Raises:
        InputError: an argument cannot be used; the message says which and what to do.
        InsufficientMemoryError: the estimated peak memory is above what is free.
        RegistrationCancelled: `cancelled` said so.
    """
    began = time.perf_counter()
    chosen = _with_overrides(load_preset(preset), weights, global_stage)
    job = _checked(fixed, moving, fixed_mask, moving_mask, initial_transform, chosen, resolve_device(device))
    check_memory(fixed.geometry, moving.geometry, chosen, job.device, memory_limit_mb)
    network = network_of(chosen, job.device)
    reporter = Reporter(stage_costs(chosen), on_progress, cancelled)
    aligned = _global_stage(job, reporter)
    start = chained(aligned.starts[0].transform, job.start) if aligned.starts else job.start
    with reporter.stage("prepare", "bringing both scans onto one grid"):
        fixed_scan, moving_scan, grid = _prepared(job, start, reporter.tick)
    if network is not None:
        forward, spread = run_published_levels(network, fixed_scan, moving_scan, chosen, reporter)
    else:
        forward, spread = _lattice_levels(fixed_scan, moving_scan, chosen, reporter)
    if chosen.refinement_iterations:
        with reporter.stage("refine", "refining on features"):
            forward = refined(
                fixed_scan,
                moving_scan,
                forward,
                chosen.refinement_iterations,
                chosen.refinement_stride,
                reporter.tick,
            )
    with reporter.stage("finish", "transform and uncertainty in mm"):
        forward = unfolded(forward, FIELD_STEP) if chosen.unfold else forward
        displacement = displacement_in_mm(forward, grid, fixed.geometry, start)
        uncertainty = uncertainty_in_mm(spread, grid, fixed.geometry)
    reporter.done()
    return RegistrationResult(
        displacement=displacement,
        uncertainty=uncertainty,
        starts=aligned.starts,
        warnings=aligned.warnings,
        seconds=time.perf_counter() - began,
        stage_seconds=reporter.seconds,
        peak_memory_mb=peak_memory_mb(),
        preset=chosen.name,
        device=str(job.device),
    )


def _with_overrides(preset: Preset, weights: str | Path | None, global_stage: bool | None) -> Preset:
    if weights is not None:
        if not preset.cube_levels:
            raise InputError(
                f"preset '{preset.name}' uses no network weights; leave them out or choose pdd-net-2019"
            )
        preset = replace(preset, weights=str(weights))
    if global_stage is None:
        return preset
    if not global_stage:
        return replace(preset, global_stage="off")
    return preset if preset.global_stage != "off" else replace(preset, global_stage="affine")


def _checked(
    fixed: Volume,
    moving: Volume,
    fixed_mask: LabelMap | None,
    moving_mask: LabelMap | None,
    initial: InitialTransform | None,
    preset: Preset,
    device: torch.device,
) -> _Job:
    for scan, mask, role in ((fixed, fixed_mask, "fixed"), (moving, moving_mask, "moving")):
        check_scan(scan, role)
        check_mask(mask, scan, role)
    given_start = initial is not None
    if initial is None and preset.grid_size:
        initial = "centres"
    if isinstance(initial, str):
        if initial != "centres":
            raise InputError(f"initial_transform is '{initial}'; a transform or 'centres' is needed")
        initial = AffineTransform.translation(moving.geometry.centre - fixed.geometry.centre)
    if initial is not None and not isinstance(initial, SpatialTransform):
        raise InputError(
            f"initial_transform is a {type(initial).__name__}; a transform is needed: read one with read_transform()"
        )
    start = initial if initial is not None else AffineTransform.identity()
    check_overlap(fixed.geometry, moving.geometry, start)
    intensity = resolved(preset.intensity, fixed, moving)
    sources = [
        ScanSource(scan, mask, Scaling.of(scan, intensity), device)
        for scan, mask in ((fixed, fixed_mask), (moving, moving_mask))
    ]
    return _Job(sources[0], sources[1], start, given_start, preset, device)


def _global_stage(job: _Job, reporter: Reporter) -> Alignment:
    if job.preset.global_stage == "off":
        return Alignment(())
    with reporter.stage("global", "finding where to start"):
        fixed, moving = job.fixed.scan.geometry, job.moving.scan.geometry
        grids = coarse_grids(fixed, moving, as_affine(job.start, fixed).matrix, job.preset)
        scans = CoarseScans(
            fixed=PlacedScan(job.fixed_on(grids[0], reporter.tick), grids[0]),
            moving=PlacedScan(job.moving_on(grids[1], job.start, reporter.tick), grids[1]),
            between_centres=moving.centre - fixed.centre,
        )
        return align_globally(scans, job.preset.global_stage, not job.given_start, reporter.tick)


def _prepared(
    job: _Job, start: SpatialTransform, tick: Callable[[], None]
) -> tuple[WorkingScan, WorkingScan, ImageGeometry]:
    """Both scans on the working grid, cropped to the bodies, and that grid."""
    grid = working_grid(job.fixed.scan.geometry, job.moving.scan.geometry, start, job.preset)
    scans = (job.fixed_on(grid, tick), job.moving_on(grid, start, tick))
    if job.preset.grid_size:
        return *scans, grid
    window = body_window(scans)
    corner, size = [w.start for w in reversed(window)], [w.stop - w.start for w in reversed(window)]
    return scans[0].cropped(window), scans[1].cropped(window), grid.cropped(corner, size)


def _lattice_levels(
    fixed: WorkingScan, moving: WorkingScan, preset: Preset, reporter: Reporter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward field (3, D, H, W) and spread (2, D, H, W) on the half-resolution lattice, in working voxels."""
    voxels = (fixed.image.shape[1], fixed.image.shape[2], fixed.image.shape[3])
    fields = FieldPair.zero(voxels, fixed.image.device)
    settings = LevelSettings(preset.body_weights, preset.temperature)
    levels = [
        (number, fitting)
        for number, level in enumerate(preset.lattice_levels, 1)
        if (fitting := fitted_to(level, voxels))
    ]
    if not levels:
        raise InputError(
            f"the working grid has {' x '.join(str(n) for n in reversed(voxels))} voxels, too few for the levels of "
            f"preset '{preset.name}'; choose one with a finer working grid, such as generic"
        )
    scans = LevelScan(fixed), LevelScan(moving)
    measured = measured_levels([level for _, level in levels])
    for (number, level), wanted in zip(levels, measured, strict=True):
        with reporter.stage(f"level {number}", f"level {number} of {len(preset.levels)}"):
            fields = run_level(*scans, fields, level, settings, reporter.tick, wanted)
    return fields.forward, fields.spread
