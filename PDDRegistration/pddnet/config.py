"""What a registration does, as data: presets, their levels, and how they are read from TOML files."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pddnet.errors import InputError

FeatureScale = Literal["coarse", "fine", "full"]
Regulariser = Literal["quadratic", "min-convolution"]
GlobalStage = Literal["off", "translation", "affine"]
IntensityKind = Literal["window", "percentiles", "auto", "divisor"]

SettingsT = TypeVar("SettingsT")

GRID_MULTIPLE = 16  # the working grid's size along each axis is a multiple of this


@dataclass(frozen=True)
class Intensity:
    """How intensities become comparable, about 0 to 1.

    Args:
        kind: "window" maps `low`..`high` (HU) to 0..1 and cuts beyond; "percentiles" does the same with the scan's own
            percentiles `low_percentile`..`high_percentile`; "auto" takes the window where both scans look like CT;
            "divisor" divides by `divisor`, nothing else (the published network was trained on HU / 500).
        foreground: above this scaled intensity a voxel belongs to the body.
    """

    kind: IntensityKind = "auto"
    low: float = -125.0
    high: float = 275.0
    low_percentile: float = 1.0
    high_percentile: float = 99.0
    divisor: float = 500.0
    foreground: float = 0.05

    def __post_init__(self) -> None:
        percentiles = (self.low_percentile, self.high_percentile)
        if not self.low < self.high or not 0 <= percentiles[0] < percentiles[1] <= 100 or self.divisor <= 0:
            raise InputError(
                f"the intensity has window {self.low} to {self.high}, percentiles {percentiles[0]} to {percentiles[1]} "
                f"and divisor {self.divisor}; low must be below high, percentiles lie in 0 to 100, a divisor above 0"
            )


@dataclass(frozen=True)
class LatticeLevel:
    """One level on a lattice: displacement labels are whole steps, so that the 6-D search needs no interpolation.

    Args:
        step: displacement step in working voxels.
        spacing: distance of control points in working voxels, a multiple of the step.
        reach: largest displacement along each axis in working voxels, a multiple of the step.
        features: scale of the features: "coarse" (half resolution), "fine" (stride 2), "full" (stride 1).
        sub: sub^3 feature cells are compared for each control point and label.
        intensity_weight: weight of the intensity channel beside the 12 MIND-SSC channels.
        regulariser: "quadratic" (the quadratic mean field) or "min-convolution" (the paper's two rounds).
        couplings: for the quadratic mean field, the weight of |label - mean|^2 in each round, per squared half-voxel
            pair (2 working voxels).
        means: for the quadratic mean field, how often its outcome is averaged over neighbouring control points: what
            more than once takes from the detail of one level, the next can put back, and the field is more regular.
        scale: for min-convolution, what the dissimilarity is multiplied by.
        symmetric: make the forward and backward fields more nearly inverse after this level.
    """

    step: int
    spacing: int
    reach: int
    features: FeatureScale
    sub: int = 1
    intensity_weight: float = 1.0
    regulariser: Regulariser = "quadratic"
    couplings: tuple[float, ...] = ()
    means: int = 1
    scale: float = 1.0
    symmetric: bool = True

    def __post_init__(self) -> None:
        if (
            min(self.step, self.spacing, self.reach, self.sub) < 1
            or self.spacing % self.step
            or self.reach % self.step
        ):
            raise InputError(
                f"a level has step {self.step}, spacing {self.spacing} and reach {self.reach}; "
                "spacing and reach must be positive multiples of the step"
            )
        if GRID_MULTIPLE % self.spacing:
            raise InputError(
                f"a level has spacing {self.spacing}; it must divide {GRID_MULTIPLE}, as the working grid's size does"
            )
        cell = {"coarse": 2, "fine": 2, "full": 1}[self.features]
        if self.step % (self.sub * cell):
            raise InputError(
                f"a level with {self.features} features has step {self.step} and sub {self.sub}; "
                f"the step must be a multiple of sub x {cell}"
            )
        if self.regulariser == "quadratic" and not self.couplings:
            raise InputError("a level with the quadratic regulariser needs a list of couplings")
        if min(self.couplings, default=0.0) < 0:
            raise InputError(f"a level has the couplings {self.couplings}; none may be below 0")
        if self.means < 1:
            raise InputError(f"a level has means {self.means}; 1 or more are needed")


@dataclass(frozen=True)
class CubeLevel:
    """One level of the published pdd-net: control points and labels regular in the image cube (-1, 1)^3.

    Args:
        control_points: number of control points along each axis, or three numbers for (x, y, z).
        labels: number of displacement labels along each axis, or three numbers.
        reach: the largest displacement q, in the cube's coordinates, or three numbers.
        instance_iterations: steps of instance optimisation afterwards; 0 for none.
    """

    control_points: int | tuple[int, int, int]
    labels: int | tuple[int, int, int]
    reach: float | tuple[float, float, float]
    instance_iterations: int = 50

    def __post_init__(self) -> None:
        wrong = (
            min(self.points_xyz) < 2 or min(self.labels_xyz) < 3 or any(n % 2 == 0 for n in self.labels_xyz)
        )
        if wrong or not all(0 < reach <= 2 for reach in self.reach_xyz):
            raise InputError(
                f"a level has {self.control_points} control points, {self.labels} labels and reach {self.reach}; "
                "needed are 2 or more control points, an odd number of 3 or more labels and a reach in (0, 2]"
            )

    @property
    def points_xyz(self) -> tuple[int, int, int]:
        """Control points along (x, y, z)."""
        return (self.control_points,) * 3 if isinstance(self.control_points, int) else self.control_points

    @property
    def labels_xyz(self) -> tuple[int, int, int]:
        """Labels along (x, y, z)."""
        return (self.labels,) * 3 if isinstance(self.labels, int) else self.labels

    @property
    def reach_xyz(self) -> tuple[float, float, float]:
        """The largest displacement along (x, y, z)."""
        return self.reach if isinstance(self.reach, tuple) else (self.reach,) * 3

    @property
    def entries(self) -> int:
        """Size of the dissimilarity volume."""
        return math.prod(self.points_xyz) * math.prod(self.labels_xyz)


Level = LatticeLevel | CubeLevel


@dataclass(frozen=True)
class Preset:
    """Everything that is decided before two scans are seen.

    Args:
        name, description: for people.
        levels: run one after the other, coarse to fine.
        spacing_mm: spacing of the working grid; 0 takes two thirds of the fixed scan's finest spacing.
        max_voxels: the working grid is made coarser until it has at most this many.
        grid_size: voxels along (x, y, z) of a working grid around the centre of the fixed scan, its axes to right,
            anterior and superior; the moving scan's centre is put there unless a start is given. For levels that were
            trained so. () takes the scans' fields of view.
        intensity: scaling of intensities.
        global_stage: what is done before the levels.
        body_weights: control points in the air count little in their neighbours' means.
        temperature: dissimilarity that one unit of log-probability stands for, in the uncertainty.
        weights: name of published weights or a file, for the network's levels; "" for none.
        unfold: smooth the field at the end just where it folds.
        refinement_iterations: steps of gradient descent on MIND-SSC features after the levels; 0 for none.
        refinement_stride: working voxels between those features, 1 or 2.
    """

    name: str
    description: str
    levels: tuple[Level, ...]
    spacing_mm: float = 2.0
    max_voxels: int = 12_000_000
    grid_size: tuple[int, ...] = ()
    intensity: Intensity = Intensity()
    global_stage: GlobalStage = "affine"
    body_weights: bool = True
    temperature: float = 0.05
    weights: str = ""
    unfold: bool = True
    refinement_iterations: int = 0
    refinement_stride: int = 2

    def __post_init__(self) -> None:
        kinds = {type(level) for level in self.levels}
        if len(kinds) != 1:
            raise InputError(
                f"preset {self.name} has {len(self.levels)} levels of {len(kinds)} kinds; one kind is needed"
            )
        if not (
            0 <= self.spacing_mm < math.inf and self.max_voxels >= 16**3 and 0 < self.temperature < math.inf
        ):
            raise InputError(
                f"preset {self.name} has spacing_mm {self.spacing_mm}, max_voxels {self.max_voxels} and temperature "
                f"{self.temperature}; needed are a spacing of 0 or more, at least 4096 voxels and a temperature above 0"
            )
        if self.grid_size and not (
            len(self.grid_size) == 3
            and min(self.grid_size) >= 8
            and not any(n % 2 for n in self.grid_size)
            and self.spacing_mm > 0
            and self.cube_levels
        ):
            raise InputError(
                f"preset {self.name} has grid_size {self.grid_size}; three even sizes of 8 or more voxels, a "
                "spacing_mm above 0 and levels of the network are needed with it"
            )
        if self.refinement_iterations < 0 or self.refinement_stride not in (1, 2):
            raise InputError(
                f"preset {self.name} has refinement_iterations {self.refinement_iterations} and refinement_stride "
                f"{self.refinement_stride}; needed are 0 or more iterations and a stride of 1 or 2"
            )

    @property
    def lattice_levels(self) -> tuple[LatticeLevel, ...]:
        """The levels, where they are lattice levels."""
        return tuple(level for level in self.levels if isinstance(level, LatticeLevel))

    @property
    def cube_levels(self) -> tuple[CubeLevel, ...]:
        """The levels, where they are those of the published network."""
        return tuple(level for level in self.levels if isinstance(level, CubeLevel))


def available_presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("pddnet") / "presets"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_preset(name: str | Path | Preset) -> Preset:
    """A bundled preset by name, or one from a TOML file by path.

    Raises:
        InputError: there is no such preset, or the file is not a valid one.
    """
    if isinstance(name, Preset):
        return name
    bundled = str(name) in available_presets()
    if not bundled and not (str(name).endswith(".toml") and Path(name).is_file()):
        raise InputError(
            f"preset '{name}' is not known; choose one of {', '.join(available_presets())}, or a .toml file"
        )
    file = resources.files("pddnet") / "presets" / f"{name}.toml" if bundled else Path(name)
    try:
        preset = _parsed(file.name.removesuffix(".toml"), file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, InputError, TypeError) as error:
        raise InputError(f"preset '{name}' cannot be used: {error}") from error
    beside = Path(name).parent / preset.weights
    if bundled or not preset.weights or not beside.is_file():
        return preset
    return replace(preset, weights=str(beside))  # weights are named relative to the file


def overridden(
    preset: Preset,
    levels: int | None = None,
    smoothness: float = 1.0,
    instance_iterations: int | None = None,
) -> Preset:
    """A preset as a user adjusts it for one registration.

    Args:
        levels: run only the first so many; None for all.
        smoothness: above 1 neighbouring control points hold together more, below 1 less. It multiplies the couplings
            of the quadratic mean field and divides the scale of min-convolution; each doubling adds one of its means.
        instance_iterations: steps of gradient descent: after each level of the published network, after the last one
            of other presets; None as the preset says.

    Raises:
        InputError: a number out of range, or a smoothness other than 1 for the published network.
    """
    count = len(preset.levels)
    if levels is not None and not 1 <= levels <= count:
        raise InputError(
            f"levels is {levels} and preset {preset.name} has {count}; choose 1 to {count}, or leave it out for all"
        )
    if not 0 < smoothness < math.inf:
        raise InputError(f"smoothness is {smoothness}; a number above 0 is needed, 1 as the preset says")
    if smoothness != 1 and preset.cube_levels:
        raise InputError(
            f"smoothness is {smoothness:g}; preset {preset.name} runs the published network, whose smoothness was "
            "learnt: leave it at 1, or choose another preset"
        )
    if instance_iterations is not None and instance_iterations < 0:
        raise InputError(f"instance_iterations is {instance_iterations}; 0 (none) or more are needed")
    chosen = (_adjusted(level, smoothness, instance_iterations) for level in preset.levels[:levels])
    preset = replace(preset, levels=tuple(chosen))
    if preset.cube_levels or instance_iterations is None:
        return preset
    return replace(preset, refinement_iterations=instance_iterations)


def _adjusted(level: Level, smoothness: float, instance_iterations: int | None) -> Level:
    if isinstance(level, CubeLevel):
        return (
            level if instance_iterations is None else replace(level, instance_iterations=instance_iterations)
        )
    if level.regulariser == "min-convolution":
        return replace(level, scale=level.scale / smoothness)
    couplings = tuple(coupling * smoothness for coupling in level.couplings)
    return replace(level, couplings=couplings, means=max(1, level.means + round(math.log2(smoothness))))


@lru_cache(maxsize=32)
def _parsed(name: str, text: str) -> Preset:
    """A preset is asked for again and again as a panel is used, and parsing one takes several milliseconds."""
    return parse_preset(name, tomllib.loads(text))


def parse_preset(name: str, table: Mapping[str, Any]) -> Preset:
    """A preset from the tables of a TOML file; unknown keys are refused."""
    settings = dict(table)
    rows = settings.pop("levels", [])
    if not isinstance(rows, list) or not rows:
        raise InputError("the preset has no levels; write each under [[levels]]")
    intensity = _from_table(Intensity, settings.pop("intensity", {}), "intensity")
    levels = tuple(
        _from_table(_kind_of_level(row), row, f"level {number}") for number, row in enumerate(rows, 1)
    )
    return _from_table(
        Preset, {"name": name, **settings, "levels": levels, "intensity": intensity}, "the preset"
    )


def _kind_of_level(row: object) -> type[LatticeLevel] | type[CubeLevel]:
    return CubeLevel if isinstance(row, Mapping) and "control_points" in row else LatticeLevel


def _from_table(kind: type[SettingsT], table: Mapping[str, Any], where: str) -> SettingsT:
    if not isinstance(table, Mapping):
        raise InputError(f"{where} is {table!r}; a table of settings is needed")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = set(table) - set(known)
    if unknown:
        raise InputError(
            f"{where} has the unknown setting {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    missing = [name for name, field in known.items() if field.default is MISSING and name not in table]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; add it")
    hints = get_type_hints(kind)
    for key, value in table.items():
        _check_value(value, hints[key], f"{where} has {key} = {value!r}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _check_value(value: object, hint: Any, where: str) -> None:
    """Refuse a value of another type than the field's: a whole number passes for any number, a list for a tuple."""
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in choices:
            raise InputError(f"{where}; it must be one of {', '.join(choices)}")
    elif get_origin(hint) is tuple:
        if choices[0] in (int, float) and not _are_numbers(value, choices[0]):
            raise InputError(f"{where}; a list of numbers is needed")
    elif get_origin(hint) is UnionType:  # a number, or three
        three = _are_numbers(value, choices[0]) and len(value) == 3  # type: ignore[arg-type]
        if not three and not _is_number(value, choices[0]):
            raise InputError(f"{where}; a {'whole ' if choices[0] is int else ''}number or three are needed")
    elif hint in (int, float):
        if not _is_number(value, hint):
            raise InputError(f"{where}; a {'whole ' if hint is int else ''}number is needed")
    elif not isinstance(value, hint):
        raise InputError(f"{where}; {'true or false' if hint is bool else 'text'} is needed")


def _are_numbers(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(_is_number(item, kind) for item in value)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
