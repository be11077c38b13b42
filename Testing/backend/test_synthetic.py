"""The synthetic patient: reproducible, anatomically plausible, the same at every resolution."""

from __future__ import annotations

import pickle

import pytest
import torch

from pddnet.errors import InputError
from pddnet.metrics import dice
from pddnet.synthetic import ORGAN_NAMES, Contrast, SyntheticPatient, synthetic_patient
from pddnet.synthetic.habitus import Habitus
from pddnet.synthetic.patient import AnatomicalCoordinates, random_variation
from pddnet.volume import LabelMap

COARSE = {"size": (64, 54, 75), "spacing_mm": 6.0}
SMALL = {"size": (24, 20, 28), "spacing_mm": 16.0}
LITRES = {
    "liver": (1.0, 2.25),
    "spleen": (0.1, 0.4),
    "pancreas": (0.05, 0.13),
    "gallbladder": (0.015, 0.06),
    "urinary bladder": (0.08, 0.4),
    "right kidney": (0.1, 0.25),
    "left kidney": (0.1, 0.25),
    "right psoas": (0.1, 0.35),
    "left psoas": (0.1, 0.35),
}


def centres(labels: LabelMap) -> dict[str, torch.Tensor]:
    """Centre of mass of each organ, (x, y, z) mm LPS."""
    return {
        name: torch.as_tensor(labels.geometry.to_lps((labels.data == label).nonzero().flip(-1).numpy())).mean(
            0
        )
        for label, name in ORGAN_NAMES.items()
    }


def litres(labels: LabelMap) -> dict[str, float]:
    voxel = torch.tensor(labels.geometry.spacing).prod() * 1e-6
    return {name: float((labels.data == label).sum() * voxel) for label, name in ORGAN_NAMES.items()}


def check_positions(patient: SyntheticPatient) -> None:
    """Left is +x, back is +y, up is +z."""
    at = centres(patient.labels)
    assert at["liver"][0] < -20 < 40 < at["spleen"][0]
    assert at["right kidney"][0] < -30 < 30 < at["left kidney"][0]
    assert at["right psoas"][0] < -15 < 15 < at["left psoas"][0]
    assert at["gallbladder"][0] < -10
    assert at["gallbladder"][2] < at["liver"][2]
    for kidney in ("right kidney", "left kidney"):
        assert at[kidney][1] > at["pancreas"][1] + 20
        assert at[kidney][2] > at["right psoas"][2] + 40
    assert at["urinary bladder"][2] == min(centre[2] for centre in at.values())


def check_tissues(patient: SyntheticPatient) -> None:
    hu, labels = patient.ct.data, patient.labels.data
    assert bool((hu[:, 0].mean() < -950) & (hu[:, -1].mean() < -850)), "air in front and behind"
    assert hu[-1].min() < -750, "lung at the top"
    assert (hu > 250).float().mean() > 0.006, "bone"
    assert ((hu > -130) & (hu < -70)).float().mean() > 0.03, "fat"
    for label, name in ORGAN_NAMES.items():
        mean = float(hu[labels == label].mean())
        assert -10 < mean < 230, f"{name} has {mean:.0f} HU"


@pytest.mark.parametrize("seed", range(21))
def test_every_patient_has_nine_plausible_organs_in_the_right_places(seed: int) -> None:
    patient = synthetic_patient(seed, **COARSE)
    assert patient.labels.labels == list(ORGAN_NAMES)
    for name, volume in litres(patient.labels).items():
        low, high = LITRES[name]
        assert low <= volume <= high, f"{name} has {volume:.3f} l"
    check_positions(patient)
    check_tissues(patient)


def test_patients_overlap_before_registration_about_as_real_ones_do() -> None:
    labels = [synthetic_patient(seed, **COARSE).labels for seed in range(6)]
    scores = [score for i, a in enumerate(labels) for b in labels[:i] for score in dice(a, b).values()]
    assert 0.25 < sum(scores) / len(scores) < 0.45  # Heinrich 2019 reports 0.30 for ten real patients


def test_the_same_seed_gives_the_same_patient_to_the_bit() -> None:
    first, again, other = (synthetic_patient(seed, **SMALL) for seed in (4, 4, 5))
    assert torch.equal(first.ct.data, again.ct.data)
    assert torch.equal(first.labels.data, again.labels.data)
    assert first.parameters == again.parameters
    assert not torch.equal(first.labels.data, other.labels.data)


def test_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    synthetic_patient(0, **SMALL)
    assert torch.equal(before, torch.get_rng_state())


def test_a_finer_grid_shows_the_same_anatomy() -> None:
    coarse = synthetic_patient(2, (33, 29, 37), 10.0)
    fine = synthetic_patient(2, (65, 57, 73), 5.0)  # every other voxel centre coincides
    differing = coarse.labels.data != fine.labels.data[::2, ::2, ::2]
    assert differing.float().mean() < 1e-4


def test_smaller_fields_of_view_crop_the_same_anatomy() -> None:
    whole = synthetic_patient(2, (41, 41, 41), 8.0)
    cropped = synthetic_patient(2, (21, 21, 21), 8.0)
    assert torch.equal(whole.labels.data[10:31, 10:31, 10:31], cropped.labels.data)


def test_the_contrast_phase_changes_intensities_but_no_shape() -> None:
    scans = {phase: synthetic_patient(1, **COARSE, contrast=phase) for phase in Contrast}
    plain = scans[Contrast.NONE]
    for scan in scans.values():
        assert torch.equal(scan.labels.data, plain.labels.data)
    liver, kidney = (plain.labels.data == label for label in (1, 6))
    mean = {
        phase: (float(s.ct.data[liver].mean()), float(s.ct.data[kidney].mean())) for phase, s in scans.items()
    }
    assert mean[Contrast.NONE][0] + 5 < mean[Contrast.ARTERIAL][0] < mean[Contrast.PORTAL][0] - 15
    assert mean[Contrast.NONE][1] + 60 < mean[Contrast.ARTERIAL][1]
    assert mean[Contrast.NONE][1] + 60 < mean[Contrast.PORTAL][1]


def test_a_phase_may_be_named_and_is_recorded() -> None:
    assert synthetic_patient(1, **SMALL, contrast="arterial").parameters["contrast"] == "arterial"
    assert synthetic_patient(1, **SMALL).parameters["contrast"] in {phase.value for phase in Contrast}


def test_without_variation_all_patients_have_nearly_the_mean_shape() -> None:
    a, b = (synthetic_patient(seed, **COARSE, variation=0.0) for seed in (0, 1))
    assert min(dice(a.labels, b.labels).values()) > 0.75
    assert a.parameters["habitus"] == b.parameters["habitus"]


def test_a_patient_says_that_it_is_synthetic_and_how_to_make_it_again() -> None:
    patient = synthetic_patient(3, **SMALL, variation=0.5)
    assert patient.parameters["synthetic"] is True
    assert "synthetic" in patient.parameters["generator"]
    assert (patient.parameters["seed"], patient.parameters["variation"]) == (3, 0.5)
    assert patient.labels.names == ORGAN_NAMES


def test_a_patient_can_be_sent_to_another_process() -> None:
    patient = synthetic_patient(3, **SMALL)
    assert torch.equal(pickle.loads(pickle.dumps(patient)).ct.data, patient.ct.data)


def test_intensities_are_whole_hounsfield_units_within_the_range_of_a_scanner() -> None:
    hu = synthetic_patient(7, **SMALL).ct.data
    assert torch.equal(hu, hu.round())
    assert -1024 <= hu.min() < -950
    assert hu.max() <= 3071


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contrast": "late"}, "'portal-venous'"),
        ({"variation": -1.0}, "variation -1.0"),
        ({"size": (8, 8, 0)}, "size"),
        ({"size": (8, 8)}, "size"),
        ({"spacing_mm": 0.0}, "spacing"),
    ],
)
def test_nonsense_is_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        synthetic_patient(0, **{**SMALL, **arguments})


def coordinate_determinants(coordinates: AnatomicalCoordinates, step: float = 4.0) -> torch.Tensor:
    """det J of space -> anatomy by finite differences over the field of view of a scan."""
    axes = [torch.arange(-extent, extent, step, dtype=torch.float64) for extent in (230.0, 170.0, 200.0)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    anatomical = torch.stack(coordinates(torch.stack((x, y, z), -1)), -1)
    columns = [
        (anatomical[:-1, :-1, 1:] - anatomical[:-1, :-1, :-1]) / step,
        (anatomical[:-1, 1:, :-1] - anatomical[:-1, :-1, :-1]) / step,
        (anatomical[1:, :-1, :-1] - anatomical[:-1, :-1, :-1]) / step,
    ]
    return torch.linalg.det(torch.stack(columns, -1))


@pytest.mark.parametrize("seed", [0, 7, 11])
def test_the_variation_between_patients_never_folds_space(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coordinates = AnatomicalCoordinates(Habitus.drawn(generator, 1.0), random_variation(generator, 1.0))
    determinants = coordinate_determinants(coordinates)
    assert determinants.min() > 0.1
    assert determinants.max() < 6


def test_a_displacement_that_is_not_integrated_would_fold_space() -> None:
    generator = torch.Generator().manual_seed(0)
    habitus = Habitus.drawn(generator, 0.0)
    stretched = 6 * random_variation(generator, 1.0)
    assert coordinate_determinants(AnatomicalCoordinates(habitus, stretched)).min() < 0
