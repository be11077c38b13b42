"""Slices along the patient's axes, through scans that may lie any way in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pddnet.geometry import Frame, ImageGeometry
from pddnet.point_samples import inside, sample_linear, sample_nearest
from pddnet.points import slabs, transform_points_torch
from pddnet.volume import LabelMap, Volume
from pddnet.warp import DisplacementField

Pixels = npt.NDArray[np.float32]

_MOST_PIXELS = 480  # along the longer edge of a slice
_SLICE_STEP_MM = 4.0


@dataclass(frozen=True)
class Plane:
    """A slice along the patient's axes, as it is drawn: the patient's right on the left.

    Args:
        geometry: pixels of equal edges, one thick.
        across: the axis (0 x, 1 y, 2 z) at right angles to the slice; 1 is coronal, 2 axial.
    """

    geometry: ImageGeometry
    across: int

    @classmethod
    def through(cls, field_of_view: ImageGeometry, point: npt.NDArray[np.float64], across: int) -> Plane:
        """The slice through `point` (x, y, z, mm LPS) that shows all of an image, however that lies in space."""
        corners = field_of_view.corners()
        low, high = corners.min(0), corners.max(0)
        in_plane = [axis for axis in range(3) if axis != across]
        pixel = max(min(field_of_view.spacing), float((high - low)[in_plane].max()) / _MOST_PIXELS)
        size = np.maximum(1, np.ceil((high - low) / pixel).astype(int))
        origin = low + (high - low - (size - 1) * pixel) / 2
        size[across], origin[across] = 1, np.clip(point[across], low[across], high[across])
        return cls(ImageGeometry(tuple(size.tolist()), (pixel,) * 3, tuple(origin)), across)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the picture, mm."""
        low, high = self.geometry.corners().min(0), self.geometry.corners().max(0)
        bottom, top = (low[2], high[2]) if self.across == 1 else (high[1], low[1])
        return float(low[0]), float(high[0]), float(bottom), float(top)

    @property
    def origin(self) -> str:
        """Where the first row is drawn, in matplotlib's words."""
        return "lower" if self.across == 1 else "upper"

    def points(self) -> torch.Tensor:
        """Pixel centres (rows, columns, 3), mm LPS; rows go up in a coronal and back in an axial slice."""
        points = torch.cat([points for _, points in slabs(self.geometry)])
        return points[:, 0] if self.across == 1 else points[0]

    def image(self, volume: Volume) -> Pixels:
        """A volume's values (rows, columns), the border held outside."""
        index = self._index(volume.geometry)
        return sample_linear(volume.data[None].cpu(), index)[..., 0].float().numpy()

    def labels(self, labels: LabelMap) -> npt.NDArray[np.int32]:
        """A label map's values (rows, columns), 0 outside."""
        index = self._index(labels.geometry)
        values = sample_nearest(labels.data.cpu(), index)
        return torch.where(inside(index, labels.data.shape), values, 0).numpy()

    def covers(self, geometry: ImageGeometry) -> npt.NDArray[np.bool_]:
        """Which pixels (rows, columns) lie in a field of view."""
        covered: npt.NDArray[np.bool_] = inside(self._index(geometry), geometry.shape).numpy()
        return covered

    def _index(self, geometry: ImageGeometry) -> torch.Tensor:
        return transform_points_torch(geometry.matrix(Frame.LPS, Frame.INDEX), self.points())


def shown_point(fixed: Volume, labels: LabelMap | None) -> npt.NDArray[np.float64]:
    """The point (x, y, z), mm LPS, whose coronal and axial slices meet most labels, or the middle."""
    point = np.array(fixed.geometry.centre)
    if labels is None or not labels.labels:
        return point
    where = labels.data.nonzero()  # (N, 3), (k, j, i)
    places = labels.geometry.to_lps(where.flip(-1).numpy())
    names = labels.data[tuple(where.T)].numpy()
    for axis in (1, 2):
        slices = np.round(places[:, axis] / _SLICE_STEP_MM).astype(int)
        voxels, counts = np.unique(np.stack([slices, names]), axis=1, return_counts=True)
        share = np.sqrt(counts)  # many organs count more than one large cut
        score = {s: float(share[voxels[0] == s].sum()) for s in np.unique(voxels[0])}
        point[axis] = _SLICE_STEP_MM * max(score, key=lambda s: score[s])
    return point


def moving_plane(plane: Plane, moving: Volume, displacement: DisplacementField) -> Plane:
    centre = torch.as_tensor(plane.geometry.centre)[None]
    return Plane.through(moving.geometry, displacement.apply(centre)[0].numpy(), plane.across)
