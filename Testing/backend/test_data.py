"""Data sets: what a file may say, what is refused with a reason, folds, caching and hashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.tiny_dataset import LABELS, scan, write_dataset
from pddnet.data import Case, Dataset, Fold
from pddnet.errors import InputError
from pddnet.interop.simpleitk import write_label_map, write_volume
from pddnet.volume import LabelMap, Volume


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    table = json.loads(path.read_text("utf-8"))
    change(table)
    path.write_text(json.dumps(table), "utf-8")
    return path


def test_scans_and_labels_come_as_their_files_hold_them(tmp_path: Path) -> None:
    dataset = Dataset.read(write_dataset(tmp_path, 3, unlabelled=1))
    volume, labels = scan(1)
    assert (dataset.name, dataset.licence) == ("tiny", "CC0")
    assert dataset.label_names == {3: "left lobe", 7: "right lobe"}
    assert dataset.labelled == ("case 0", "case 1")
    assert torch.equal(dataset.image("case 1").data, volume.data)
    assert dataset.image("case 1").geometry.is_close(volume.geometry)
    assert torch.equal(dataset.labels("case 1").data, labels.data)
    assert dataset.labels("case 1").name(7) == "right lobe"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dataset(tmp_path, 2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Dataset.read(path).image("case 0").data.numel() > 0


def test_reading_the_file_reads_no_voxels_and_a_scan_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dataset(tmp_path, 2)
    seen: list[Path] = []
    from pddnet import data

    original = data.interop.read_volume
    monkeypatch.setattr(data.interop, "read_volume", lambda p: seen.append(p) or original(p))
    dataset = Dataset.read(path)
    assert seen == []
    assert dataset.image("case 0") is dataset.image("case 0")
    assert seen == [tmp_path / "scan-0.mha"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(colour="red"), "unknown entry colour"),
        (lambda t: t.pop("name"), "lacks name"),
        (lambda t: t["cases"][0].update(mask="m"), "unknown entry mask"),
        (lambda t: t["cases"][0].update(image="absent.mha"), "absent.mha does not exist"),
        (lambda t: t["cases"][1].update(labels="absent.mha"), "absent.mha does not exist"),
        (lambda t: t.update(cases=t["cases"][:1]), r"has 1 case\(s\); a registration needs two"),
        (lambda t: t["cases"][1].update(name="case 0"), "several cases named case 0"),
        (lambda t: t.update(labels={"0": "air"}), "label codes 0; whole numbers above 0"),
        (lambda t: t.update(labels={"one": "liver"}), "label codes one; whole numbers"),
        (lambda t: t.update(folds=[{"train": ["case 0"], "test": ["case 9"]}]), "no case 'case 9'; it holds"),
        (lambda t: t.update(folds=[{"train": ["case 0"], "test": ["case 0"]}]), "trains and tests on case 0"),
        (lambda t: t["cases"][0].update(labels="labels-1.mha"), "does not lie on the grid of .*scan-0"),
    ],
)
def test_a_wrong_file_is_refused_with_its_fault(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Dataset.read(changed(write_dataset(tmp_path, 2), change))


def test_a_file_that_is_no_json_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="is no JSON file"):
        Dataset.read(tmp_path / "d.json")
    with pytest.raises(InputError, match="does not exist"):
        Dataset.read(tmp_path / "other.json")


def test_codes_that_the_data_set_does_not_name_are_refused(tmp_path: Path) -> None:
    path = changed(write_dataset(tmp_path, 2), lambda t: t.update(labels={"3": LABELS["3"]}))
    with pytest.raises(InputError, match=r"labels-0.mha holds the labels 7, which data set tiny does not"):
        Dataset.read(path).labels("case 0")


def test_a_case_without_labels_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="case 'case 1' of data set tiny has no label map"):
        Dataset.read(write_dataset(tmp_path, 2, unlabelled=1)).labels("case 1")


def cases(count: int) -> list[Case]:
    return [Case(f"{n}", Path(f"{n}.mha"), Path(f"{n}-labels.mha")) for n in range(count)]


def test_each_case_is_tested_in_one_fold_and_never_trained_on_there() -> None:
    folds = Dataset("d", cases(10), {1: "a"}).cross_validation(3, seed=5)
    assert sorted(name for fold in folds for name in fold.test) == sorted(str(n) for n in range(10))
    assert {len(fold.test) for fold in folds} == {3, 4}
    for fold in folds:
        assert set(fold.train) == {str(n) for n in range(10)} - set(fold.test)


def test_folds_depend_on_the_seed_alone_and_the_files_own_come_first() -> None:
    dataset = Dataset("d", cases(9), {1: "a"})
    assert dataset.cross_validation(3, 1) == dataset.cross_validation(3, 1) != dataset.cross_validation(3, 2)
    own = (Fold(("0", "1"), ("2", "3")),)
    assert Dataset("d", cases(9), {1: "a"}, own).cross_validation(3, 1) == own
    with pytest.raises(InputError, match="9 labelled cases for 5 folds"):
        dataset.cross_validation(5, 1)


def test_the_hash_is_of_the_content_of_both_files(tmp_path: Path) -> None:
    dataset = Dataset.read(write_dataset(tmp_path, 2))
    before = [dataset.content_hash(name) for name in ("case 0", "case 1")]
    assert before[0] != before[1]
    assert dataset.content_hash("case 0") == before[0]
    volume, labels = scan(0)
    write_label_map(tmp_path / "labels-0.mha", LabelMap(labels.data.flip(0), labels.geometry))
    changed_labels = dataset.content_hash("case 0")
    write_label_map(tmp_path / "labels-0.mha", labels)
    write_volume(tmp_path / "scan-0.mha", Volume(volume.data + 1, volume.geometry))
    assert len({before[0], changed_labels, dataset.content_hash("case 0")}) == 3
