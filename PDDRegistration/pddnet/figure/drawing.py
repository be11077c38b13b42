"""One picture of a registration: the scans, the checkerboard, the deformation, its folds and its uncertainty.

matplotlib is needed only when a figure is drawn; it comes with `pip install "pddnet[demo]"`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from pddnet.figure.plane import Pixels, Plane, moving_plane, shown_point
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_CT_WINDOW = (-160.0, 240.0)
_PANEL_INCHES = 3.4
_CHECKERS = 8
_GRID_LINES = 24
_LARGEST_CHANGE = 3.0  # of volume, on the Jacobian's colour scale
_MOST_IN_LEGEND = 12
_BAR: dict[str, Any] = {"location": "bottom", "shrink": 0.8, "aspect": 30, "pad": 0.02}


@dataclass(frozen=True)
class _Scene:
    """What the panels of one slice direction show."""

    fixed: Volume
    moving: Volume
    warped: Volume
    displacement: DisplacementField
    jacobian: Volume
    uncertainty_mm: Volume
    fixed_labels: LabelMap | None
    warped_labels: LabelMap | None
    colours: dict[int, Any]
    plane: Plane
    moving_plane: Plane


def registration_figure(
    fixed: Volume,
    moving: Volume,
    warped: Volume,
    displacement: DisplacementField,
    jacobian: Volume,
    uncertainty_mm: Volume,
    path: Path | str,
    fixed_labels: LabelMap | None = None,
    warped_labels: LabelMap | None = None,
    title: str = "Registration",
) -> None:
    """Draw a registration into one PNG: eight panels on a coronal slice and four on an axial one.

    Slices run along the patient's axes, whatever way the scans lie in space, the patient's right on the left. The
    moving scan is cut where the centre of the fixed slice is mapped to; everything else lies on the fixed slice.
    The grid is a regular one in the moving scan, as the registration carries it onto the fixed scan.

    Args:
        fixed, moving, warped: the scans, and the moving one on the fixed one's grid.
        displacement: fixed point -> moving point.
        jacobian, uncertainty_mm: the determinant and the standard deviation of the displacement, on any grids.
        path: the PNG file.
        fixed_labels, warped_labels: outlines; the slices go where most of the fixed labels can be seen.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure_class, canvas_class, colour_map = _matplotlib()
    labels = sorted(
        {*(fixed_labels.labels if fixed_labels else []), *(warped_labels.labels if warped_labels else [])}
    )
    colours = {label: colour_map("tab20")(position % 20) for position, label in enumerate(labels)}
    planes = [Plane.through(fixed.geometry, shown_point(fixed, fixed_labels), across) for across in (1, 2)]
    heights = [_height_share(plane) for plane in (planes[0], planes[0], planes[1])]
    figure = figure_class(
        figsize=(4 * _PANEL_INCHES, (sum(heights) + 0.5) * _PANEL_INCHES), layout="constrained"
    )
    canvas_class(figure)
    rows = figure.subplots(3, 4, gridspec_kw={"height_ratios": heights})
    for plane, image_row in ((planes[0], rows[0]), (planes[1], rows[2])):
        scene = _Scene(
            fixed, moving, warped, displacement, jacobian, uncertainty_mm, fixed_labels, warped_labels,
            colours, plane, moving_plane(plane, moving, displacement),
        )  # fmt: skip
        _draw_scans(scene, image_row)
        if plane is planes[0]:
            _draw_deformation(scene, rows[1])
    figure.suptitle(title)
    _add_legend(figure, colours, fixed_labels or warped_labels)
    figure.savefig(Path(path), dpi=110, format="png")


def _matplotlib() -> tuple[Any, Any, Any]:
    """matplotlib's figure and canvas without its global state, and its colour maps."""
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('figures need matplotlib; install it with: pip install "pddnet[demo]"') from error
    return Figure, FigureCanvasAgg, colormaps.__getitem__


def _draw_scans(scene: _Scene, row: npt.NDArray[Any]) -> None:
    plane = scene.plane
    fixed, moving = _grey(scene.fixed), _grey(scene.moving)
    outlines = [
        (labels, style)
        for labels, style in ((scene.fixed_labels, "-"), (scene.warped_labels, "--"))
        if labels
    ]
    view = "coronal" if plane.across == 1 else "axial"
    on_fixed, on_warped = fixed(plane, scene.fixed), moving(plane, scene.warped)
    for axes, title, picture, where in (
        (row[0], f"fixed, {view}", on_fixed, plane),
        (row[1], "moving", moving(scene.moving_plane, scene.moving), scene.moving_plane),
        (row[2], "moving, warped", on_warped, plane),
        (row[3], "checkerboard: fixed and warped", _checkerboard(on_fixed, on_warped), plane),
    ):
        _show(axes, where, picture, title, cmap="gray", vmin=0, vmax=1)
    row[0].text(0.02, 0.5, "R", color="white", transform=row[0].transAxes)
    for axes, shown in ((row[0], outlines[:1]), (row[2], outlines)):
        for labels, style in shown:
            _outline(axes, plane, labels, scene.colours, style)


def _draw_deformation(scene: _Scene, row: npt.NDArray[Any]) -> None:
    plane, figure = scene.plane, row[0].figure
    known = plane.covers(scene.fixed.geometry)
    background = _grey(scene.fixed)(plane, scene.fixed)
    _show(row[0], plane, background, "moving scan's grid on fixed", cmap="gray", vmin=0, vmax=1.3)
    _draw_grid(row[0], plane, scene.displacement, known)

    folded = float((scene.jacobian.data <= 0).float().mean())
    _show(row[1], plane, background, f"folding: {100 * folded:.3f} %", cmap="gray", vmin=0, vmax=1.3)
    _show(row[1], plane, _red(_folds(plane, scene.jacobian) & known), f"folding: {100 * folded:.3f} %")

    determinant = np.clip(plane.image(scene.jacobian), 1 / _LARGEST_CHANGE, _LARGEST_CHANGE)
    span = math.log2(_LARGEST_CHANGE)
    logarithm = np.where(known, np.log2(determinant), np.nan)
    shown = _show(row[2], plane, logarithm, "Jacobian determinant", cmap="RdBu_r", vmin=-span, vmax=span)
    bar = figure.colorbar(shown, ax=row[2], ticks=[-span, -1, 0, 1, span], **_BAR)
    bar.ax.set_xticklabels(["1/3", "1/2", "1", "2", "3"])

    spread = np.where(known, plane.image(scene.uncertainty_mm), np.nan)
    top = max(float(np.nanpercentile(spread, 99.5)), 1e-3) if known.any() else 1.0
    shown = _show(row[3], plane, spread, "uncertainty, mm", cmap="inferno", vmin=0, vmax=top)
    figure.colorbar(shown, ax=row[3], **_BAR)


def _show(axes: Axes, plane: Plane, picture: npt.NDArray[Any], title: str, **style: Any) -> AxesImage:
    axes.set_facecolor("black")
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(picture, extent=plane.extent, origin=plane.origin, interpolation="nearest", **style)  # type: ignore[arg-type]


def _outline(axes: Axes, plane: Plane, labels: LabelMap, colours: dict[int, Any], style: str) -> None:
    picture = plane.labels(labels)
    if min(picture.shape) < 2:
        return  # nothing to draw a line around
    for label in np.unique(picture[picture != 0]).tolist():
        _contour(
            axes, plane, (picture == label).astype(float), [0.5], colors=[colours[label]], linestyles=style
        )


def _draw_grid(
    axes: Axes, plane: Plane, displacement: DisplacementField, known: npt.NDArray[np.bool_]
) -> None:
    moved = displacement.apply(plane.points()).numpy()  # (rows, columns, 3)
    left, right, bottom, top = plane.extent
    step = max(right - left, abs(top - bottom)) / _GRID_LINES
    for axis in (0, 3 - plane.across):
        place = np.where(known, moved[..., axis], np.nan)
        if min(place.shape) < 2 or not known.any():
            return
        lines = np.arange(math.ceil(np.nanmin(place) / step), np.nanmax(place) / step) * step
        if len(lines):
            _contour(axes, plane, place, lines.tolist(), colors=["gold"], linestyles="-")


def _contour(axes: Axes, plane: Plane, values: npt.NDArray[Any], levels: list[float], **style: Any) -> None:
    points = plane.points().numpy()
    axes.contour(points[..., 0], points[..., 3 - plane.across], values, levels, linewidths=0.8, **style)


def _folds(plane: Plane, jacobian: Volume) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = plane.labels(LabelMap((jacobian.data <= 0).int(), jacobian.geometry)) > 0
    return mask


def _red(mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """(rows, columns, 4): red where the mask is set, clear elsewhere."""
    return np.stack([mask, np.zeros_like(mask), np.zeros_like(mask), mask], -1).astype(np.float32)


def _checkerboard(first: Pixels, second: Pixels) -> Pixels:
    rows, columns = first.shape
    edge = max(1, math.ceil(max(rows, columns) / _CHECKERS))
    odd = (np.arange(rows)[:, None] // edge + np.arange(columns) // edge) % 2 == 1
    return np.where(odd, second, first)


def _grey(scan: Volume) -> _Window:
    values = scan.data[torch.isfinite(scan.data)].flatten()
    values = values[:: max(1, len(values) // 100_000)].float()
    if len(values) == 0:
        return _Window(0.0, 1.0)
    if float(values.min()) < -500 and float(values.max()) > 100:  # air and soft tissue: Hounsfield units
        return _Window(*_CT_WINDOW)
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99])).tolist()
    return _Window(low, max(high, low + 1e-6))


@dataclass(frozen=True)
class _Window:
    """The intensities drawn black and white."""

    low: float
    high: float

    def __call__(self, plane: Plane, scan: Volume) -> Pixels:
        """A slice from 0 (black, and outside the scan) to 1 (white)."""
        grey = np.clip((plane.image(scan) - self.low) / (self.high - self.low), 0, 1)
        return np.where(plane.covers(scan.geometry), grey, 0).astype(np.float32)


def _height_share(plane: Plane) -> float:
    left, right, bottom, top = plane.extent
    return float(np.clip(abs(top - bottom) / (right - left), 0.3, 2.5))


def _add_legend(figure: Any, colours: dict[int, Any], names: LabelMap | None) -> None:
    if names is None or not colours:
        return
    from matplotlib.lines import Line2D

    shown = list(colours)[:_MOST_IN_LEGEND]
    lines = [Line2D([], [], color=colours[label], label=names.name(label)) for label in shown]
    lines.append(Line2D([], [], color="grey", linestyle="-", label="fixed"))
    lines.append(Line2D([], [], color="grey", linestyle="--", label="warped"))
    figure.legend(handles=lines, loc="outside lower center", ncols=7, fontsize=9)
