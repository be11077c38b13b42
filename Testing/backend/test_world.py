"""Scans whose frames are not the world's: algebra against closed forms, and whole registrations against an oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from backend.asking import QUICK, ask, field_of, organs, patient, save_labels, save_scan, save_transform, wave
from pddnet import job
from pddnet.geometry import ImageGeometry
from pddnet.interop import simpleitk as interop
from pddnet.inversion import invert
from pddnet.metrics import jacobian_determinant
from pddnet.volume import Volume
from pddnet.warp import AffineTransform, DisplacementField, Sequential, resample
from pddnet.world import WorldFrames, box_in_world, sequence

FINE = replace(QUICK, levels=None)
TURN = AffineTransform(np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1.2, 3], [0, 0, 0, 1.0]]))
STRETCH = AffineTransform(np.array([[1.1, 0, 0, -2], [0.1, 0.9, 0, 4], [0, 0, 1, 6], [0, 0, 0, 1.0]]))


def both_ways(transform: AffineTransform) -> tuple[AffineTransform, AffineTransform]:
    return transform, transform.inverse()


def test_without_parents_the_displacement_is_the_one_that_was_found(oblique_geometry: ImageGeometry) -> None:
    covering = oblique_geometry.cropped((-1, -1, -1), [n + 2 for n in oblique_geometry.size])
    found = wave(covering, 2.0)
    same = WorldFrames().displacement(found, oblique_geometry)
    assert torch.equal(same.vectors, found.vectors)
    assert same.geometry == found.geometry
    small = wave(oblique_geometry.cropped((2, 2, 2), (3, 4, 5)), 2.0)
    grown = WorldFrames().displacement(small, oblique_geometry)
    index = grown.geometry.to_index(oblique_geometry.corners())
    assert (index > -0.5 - 1e-4).all()
    assert (index < np.subtract(grown.geometry.size, 0.5) + 1e-4).all()


@pytest.mark.parametrize("fixed_parent", [True, False])
@pytest.mark.parametrize("moving_parent", [True, False])
def test_the_displacement_in_the_world_is_the_composition(
    oblique_geometry: ImageGeometry, fixed_parent: bool, moving_parent: bool
) -> None:
    fixed = both_ways(TURN) if fixed_parent else (None, None)
    moving = both_ways(STRETCH) if moving_parent else (None, None)
    frames = WorldFrames(fixed[0], fixed[1], moving[0], moving[1])
    shift = torch.tensor([1.0, -2.0, 0.5]).expand((*oblique_geometry.shape, 3))
    world = frames.displacement(DisplacementField(shift, oblique_geometry), oblique_geometry)
    points = torch.as_tensor(oblique_geometry.samples(4))
    in_world = TURN.apply(points) if fixed_parent else points
    expected = points + shift[0, 0, 0]
    expected = STRETCH.apply(expected) if moving_parent else expected
    torch.testing.assert_close(world.apply(in_world), expected, atol=1e-3, rtol=0)
    start = frames.start(AffineTransform.translation((1.0, 2.0, 3.0)))
    assert isinstance(start, AffineTransform)
    there = in_world + torch.tensor([1.0, 2.0, 3.0])
    there = STRETCH.inverse().apply(there) if moving_parent else there
    torch.testing.assert_close(start.apply(points), there)


def test_the_jacobian_is_of_the_world_whatever_the_fixed_scans_parent_does(
    oblique_geometry: ImageGeometry,
) -> None:
    frames = WorldFrames(TURN, TURN.inverse())
    box = box_in_world(oblique_geometry, TURN, 1.0)
    stretched = DisplacementField.sampled(STRETCH, box)
    determinant = frames.jacobian(stretched, oblique_geometry).data
    np.testing.assert_allclose(determinant, np.linalg.det(STRETCH.matrix), atol=1e-4)
    assert abs(np.linalg.det(TURN.matrix) - 1) > 0.1  # which must not count
    plain = WorldFrames(AffineTransform.identity(), AffineTransform.identity())
    field = wave(box_in_world(oblique_geometry, AffineTransform.identity(), 1.5), 1.0, 20.0)
    inner = (slice(1, -1),) * 3  # at the border one takes differences to one side
    torch.testing.assert_close(
        plain.jacobian(field, oblique_geometry).data[inner],
        jacobian_determinant(field, oblique_geometry).data[inner],
        atol=1e-4,
        rtol=0,
    )


def test_a_box_in_the_world_holds_the_scan_and_little_more(oblique_geometry: ImageGeometry) -> None:
    box = box_in_world(oblique_geometry, TURN, 2.0)
    index = box.to_index(TURN.apply(torch.as_tensor(oblique_geometry.corners())).numpy())
    assert box.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    assert (index.min(0) >= 1 - 1e-6).all()
    assert (index.min(0) < 1.01).all()
    assert (index.max(0) <= np.subtract(box.size, 1)).all()
    assert (index.max(0) > np.subtract(box.size, 4)).all()


def test_between_centres_leads_from_one_to_the_other_in_the_world(oblique_geometry: ImageGeometry) -> None:
    frames = WorldFrames(TURN, TURN.inverse(), STRETCH, STRETCH.inverse())
    other = replace(oblique_geometry, origin=(9.0, 8.0, 7.0))
    start = frames.start(frames.between_centres(oblique_geometry, other))
    assert start is not None
    np.testing.assert_allclose(start.apply(torch.as_tensor(oblique_geometry.centre)[None])[0], other.centre)


def test_a_sequence_leaves_out_what_is_not_there() -> None:
    assert sequence(None, None) is None
    assert sequence(None, TURN, None) is TURN
    points = torch.rand(5, 3, dtype=torch.float64)
    both = sequence(TURN, None, STRETCH)
    assert both is not None
    torch.testing.assert_close(both.apply(points), STRETCH.apply(TURN.apply(points)))


# --- whole registrations: one scan seen twice, once under a transform that no matrix says


class Bent:
    """A patient, and the same patient's scan in a frame of its own that `to_world` leads out of."""

    def __init__(self) -> None:
        a = patient(6, (30, 28, 26))
        self.straight, self.labels = a.ct, a.labels
        around = a.ct.geometry.coarsened((2, 2, 2)).cropped((-4, -4, -4), (23, 22, 21))
        self.to_world = wave(around, 6.0)
        self.from_world, residual = invert(self.to_world, around.cropped((-2, -2, -2), (27, 26, 25)))
        assert residual.data.max() < 0.01
        # what lies at y in its own frame lies at to_world(y) in the world
        self.scan = resample(a.ct, a.ct.geometry, self.to_world)
        self.scan_labels = resample(a.labels, a.ct.geometry, self.to_world)


@pytest.fixture(scope="module")
def bent() -> Bent:
    return Bent()


def inner(scan: Volume, width: int = 5) -> torch.Tensor:
    """Points away from the border, (N, 3)."""
    grid = scan.geometry.cropped((width,) * 3, [n - 2 * width for n in scan.geometry.size])
    return torch.as_tensor(grid.samples(7))


def test_a_moving_scan_under_a_bent_transform_is_found_where_the_world_has_it(
    tmp_path: Path, bent: Bent
) -> None:
    fixed = save_scan(tmp_path, "fixed", bent.straight)
    moving = save_scan(tmp_path, "moving", bent.scan)
    to_world = save_transform(tmp_path, "to", bent.to_world)
    from_world = save_transform(tmp_path, "from", bent.from_world)
    parents = job.Parents(None, None, to_world, from_world)
    layer = save_labels(tmp_path, "labels", bent.scan_labels)
    request = job.RegisterRequest(
        fixed,
        moving,
        parents=parents,
        segmentations=(replace(organs(layer, bent.labels), from_world=from_world),),
        fixed_segmentation=organs(save_labels(tmp_path, "reference", bent.labels), bent.labels),
        options=replace(FINE, inverse=True),
    )
    ran = ask(tmp_path, request).succeeded
    files = job.register_files(ran)
    field = field_of(tmp_path, files.displacement)
    assert field.at(inner(bent.straight)).norm(dim=-1).mean() < 0.7  # in the world they lie on each other
    inverse = field_of(tmp_path, files.inverse)
    assert inverse.at(inner(bent.straight)).norm(dim=-1).mean() < 0.7
    assert mean_dice(ran, "before") > 0.8
    alike = correlation(job.load_array(tmp_path, files.warped, "warped"), bent.straight.data.numpy())
    assert alike > 0.9 > correlation(bent.scan.data.numpy(), bent.straight.data.numpy()) + 0.1
    # what was sent lies under both transforms, one after the other
    through = Sequential((field, bent.from_world))
    ours = resample(bent.scan_labels, bent.straight.geometry, through).data.numpy()
    layer_back = job.load_array(tmp_path, files.segmentations[0].layers[0], "labels")
    np.testing.assert_array_equal(layer_back, ours)
    theirs = sitk.Resample(
        interop.to_sitk(bent.scan_labels),
        interop.to_sitk(bent.labels),
        interop.transform_to_sitk(through),
        sitk.sitkNearestNeighbor,
        0,
    )
    assert (
        np.count_nonzero(layer_back[3:-3, 3:-3, 3:-3] != sitk.GetArrayFromImage(theirs)[3:-3, 3:-3, 3:-3])
        == 0
    )
    # without its transform the same pair lies apart
    apart = ask(tmp_path, replace(request, parents=job.Parents(), segmentations=())).succeeded
    other = field_of(tmp_path, job.register_files(apart).displacement)
    assert other.at(inner(bent.straight)).norm(dim=-1).mean() > 3


def test_a_fixed_scan_under_a_bent_transform_gets_its_outputs_on_its_own_grid(
    tmp_path: Path, bent: Bent
) -> None:
    to_world = save_transform(tmp_path, "to", bent.to_world)
    from_world = save_transform(tmp_path, "from", bent.from_world)
    reference = organs(save_labels(tmp_path, "reference", bent.scan_labels), bent.labels)
    request = job.RegisterRequest(
        save_scan(tmp_path, "fixed", bent.scan),
        save_scan(tmp_path, "moving", bent.straight),
        parents=job.Parents(to_world, from_world, None, None),
        segmentations=(organs(save_labels(tmp_path, "labels", bent.labels), bent.labels),),
        fixed_segmentation=replace(reference, from_world=from_world),
        options=FINE,
    )
    ran = ask(tmp_path, request).succeeded
    files = job.register_files(ran)
    field = field_of(tmp_path, files.displacement)
    assert field.geometry.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    corners = bent.to_world.apply(torch.as_tensor(bent.scan.geometry.corners())).numpy()
    assert (field.geometry.to_index(corners) > -0.5).all()
    assert field.at(inner(bent.straight)).norm(dim=-1).mean() < 0.7
    grid = bent.scan.geometry
    for image in (files.warped, files.jacobian, files.uncertainty, files.segmentations[0].layers[0]):
        assert image.geometry == grid
    through = Sequential((bent.to_world, field))
    back = job.load_array(tmp_path, files.segmentations[0].layers[0], "labels")
    np.testing.assert_array_equal(back, resample(bent.labels, grid, through).data.numpy())
    warped = job.load_array(tmp_path, files.warped, "warped")
    np.testing.assert_array_equal(
        warped, np.rint(resample(whole(bent.straight), grid, through).data.double().numpy()).astype(np.int16)
    )
    assert mean_dice(ran, "before") > 0.8
    assert mean_dice(ran, "after") > 0.8
    assert correlation(warped, bent.scan.data.numpy()) > 0.9


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of intensities away from the border."""
    return float(np.corrcoef(*(x[5:-5, 5:-5, 5:-5].ravel() for x in (a, b)))[0, 1])


def mean_dice(ran: job.Succeeded, when: str) -> float:
    return float(np.mean([row[f"dice_{when}"] for row in ran.report["segments"]]))


def whole(scan: Volume) -> Volume:
    """As it comes back from an array of whole numbers."""
    return Volume(scan.data.short(), scan.geometry)


def test_centres_are_taken_in_the_world(tmp_path: Path, bent: Bent) -> None:
    far = replace(
        bent.straight.geometry, origin=tuple(np.add(bent.straight.geometry.origin, (200.0, 50.0, -80.0)))
    )
    request = job.RegisterRequest(
        save_scan(tmp_path, "fixed", bent.scan),
        save_scan(tmp_path, "moving", Volume(bent.straight.data, far)),
        parents=job.Parents(
            save_transform(tmp_path, "to", bent.to_world),
            save_transform(tmp_path, "from", bent.from_world),
            None,
            None,
        ),
        initial_transform="centres",
        options=FINE,
    )
    files = job.register_files(ask(tmp_path, request).succeeded)
    mean = field_of(tmp_path, files.displacement).at(inner(bent.straight)).mean(0).numpy()
    np.testing.assert_allclose(mean, (200.0, 50.0, -80.0), atol=1.5)
