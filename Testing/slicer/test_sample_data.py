"""The samples: registered by name, as Slicer's Sample Data module wants them, and loaded whole or not at all."""

from __future__ import annotations

import pytest
import SampleData
import slicer

from PDDRegistrationLib.sample_data import (
    CATEGORY,
    brainTumorTitle,
    loadBrainTumor,
    registerSampleData,
    syntheticTitle,
)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch, scene):  # noqa: ARG001 (a fresh one)
    for name in ("sampleDataSources", "sampleDataSourceCategories"):
        monkeypatch.setattr(slicer.modules, name, {}, raising=False)


def _sources():
    return {source.sampleName: source for source in slicer.modules.sampleDataSources[CATEGORY]}


def test_both_pairs_are_offered_by_name():
    registerSampleData(lambda: None, lambda name: f"/icons/{name}")
    assert set(_sources()) == {brainTumorTitle(), syntheticTitle()}
    assert slicer.modules.sampleDataSourceCategories[CATEGORY]["title"]
    assert _sources()[syntheticTitle()].thumbnailFileName.startswith("/icons/")


def test_the_real_pair_is_slicers_own_with_its_checksums():
    registerSampleData(lambda: None, str)
    source = _sources()[brainTumorTitle()]
    assert len(source.uris) == len(source.checksums) == 2
    assert all(checksum.startswith("SHA256:") for checksum in source.checksums)
    nodes = SampleData.SampleDataLogic().downloadSamples(brainTumorTitle())
    assert [node.GetName() for node in nodes] == ["MRBrainTumor1", "MRBrainTumor2"]


def test_the_made_up_pair_is_made_and_shown_when_it_is_asked_for(scene):
    made = []

    def add():
        made.append(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        return {"fixed": made[0]}

    registerSampleData(add, str)
    assert not made
    _sources()[syntheticTitle()].customDownloader(_sources()[syntheticTitle()])
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert selection.GetActiveVolumeID() == made[0].GetID()


def test_a_made_up_pair_that_cannot_be_made_is_told_to_the_user(monkeypatch):
    def fail():
        raise RuntimeError("PyTorch is missing")

    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_more: told.append(text))
    registerSampleData(fail, str)
    with pytest.raises(RuntimeError, match="PyTorch"):  # printed by the application
        _sources()[syntheticTitle()].customDownloader(_sources()[syntheticTitle()])
    assert "PyTorch is missing" in told[0]


def test_slicers_without_categories_get_the_samples_too(monkeypatch):
    monkeypatch.delattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory")
    registerSampleData(lambda: None, str)
    assert len(_sources()) == 2


def test_half_a_pair_is_taken_out_of_the_scene_again(scene, monkeypatch):
    whole = SampleData.SampleDataLogic.downloadSamples
    monkeypatch.setattr(
        SampleData.SampleDataLogic,
        "downloadSamples",
        lambda self, name: whole(self, name) if name == "MRBrainTumor1" else [],
    )
    before = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    with pytest.raises(RuntimeError, match="MRBrainTumor2"):
        loadBrainTumor(scene)
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before
