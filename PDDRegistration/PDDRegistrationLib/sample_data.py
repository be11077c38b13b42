"""Scans to try the module with: two of Slicer's own samples, and two abdomens made up on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

CATEGORY = "PDDRegistration"
_BEFORE, _AFTER = "MRBrainTumor1", "MRBrainTumor2"  # names in Slicer's Sample Data module


def brainTumorTitle() -> str:
    """What the sample of real scans is called."""
    return _("MR brain tumor, before and after treatment")


def syntheticTitle() -> str:
    """What the sample of made-up scans is called."""
    return _("Synthetic abdomens (no network)")


def registerSampleData(addSyntheticPair: Callable[[], Any], thumbnail: Callable[[str], str]) -> None:
    """Offer both pairs in the Sample Data module.

    Args:
        addSyntheticPair: adds the made-up pair to the scene; returns its nodes, "fixed" among them.
        thumbnail: path of a picture by its file name.
    """
    from SampleData import SampleDataLogic

    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # newer than 5.10
        SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, _("PDD Registration"))
    sources = [SampleDataLogic().sourceForSampleName(name) for name in (_BEFORE, _AFTER)]
    if None not in sources:
        SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=brainTumorTitle(),
            uris=[uri for source in sources for uri in source.uris],
            fileNames=[name for source in sources for name in source.fileNames],
            nodeNames=[_BEFORE, _AFTER],
            checksums=[checksum for source in sources for checksum in source.checksums],
        )
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=syntheticTitle(),
        thumbnailFileName=thumbnail("SyntheticAbdomens.png"),
        uris="",  # Sample Data needs one for each file, and there is a file for each node
        fileNames="",
        nodeNames="",
        customDownloader=lambda _source: _addAndShow(addSyntheticPair),
    )


def _addAndShow(addSyntheticPair: Callable[[], Any]) -> None:
    """As Sample Data does with what it has downloaded; it would print an error where nobody looks."""
    with slicer.util.tryWithErrorDisplay(_("The made-up scans could not be added.")):
        pair = addSyntheticPair()
        application = slicer.app.applicationLogic()
        application.GetSelectionNode().SetActiveVolumeID(pair["fixed"].GetID())
        application.PropagateVolumeSelection()


def loadBrainTumor(scene: Any) -> dict[str, Any]:
    """Download Slicer's two scans of one patient: {"fixed": before, "moving": after treatment}.

    Raises:
        RuntimeError: they cannot be had; the scene is as it was.
    """
    from SampleData import SampleDataLogic

    nodes: dict[str, Any] = {}
    for role, name in (("fixed", _BEFORE), ("moving", _AFTER)):
        loaded = SampleDataLogic().downloadSamples(name)
        if not loaded:
            for node in nodes.values():
                scene.RemoveNode(node)
            raise RuntimeError(
                _(
                    "The sample {name} could not be downloaded; check the network, or choose the synthetic sample, "
                    "which needs none."
                ).format(name=name)
            )
        nodes[role] = loaded[0]
    return nodes
