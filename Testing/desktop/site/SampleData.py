"""Stand-in of Slicer's Sample Data module: registers and finds samples as it does, and makes them up."""

from __future__ import annotations

import numpy as np
import slicer

_BUILT_IN = ("MRHead", "CTChest", "MRBrainTumor1", "MRBrainTumor2")
_SIZE = (12, 14, 16)
offline = False  # a test sets it to see what happens without a network


class SampleDataSource:
    """One sample: as many addresses as file names, node names and checksums."""

    def __init__(
        self,
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        customDownloader=None,
        thumbnailFileName=None,
    ):
        if isinstance(uris, str):
            uris, fileNames, nodeNames, checksums = [uris], [fileNames], [nodeNames], [checksums]
        checksums = [None] * len(uris) if checksums is None else checksums
        if not len(uris) == len(fileNames) == len(nodeNames) == len(checksums):
            raise ValueError("All fields of sample data source must have the same length")
        self.sampleName, self.thumbnailFileName = sampleName, thumbnailFileName
        self.uris, self.fileNames, self.nodeNames, self.checksums = uris, fileNames, nodeNames, checksums
        self.customDownloader = customDownloader


class SampleDataLogic:
    """What modules use of it."""

    def __init__(self):
        for name in _BUILT_IN:
            if self.sourceForSampleName(name) is None:
                self.registerCustomSampleDataSource(
                    "General", name, f"https://example.org/{name}", f"{name}.nrrd", name, checksums="SHA256:0"
                )

    @staticmethod
    def registerCustomSampleDataCategory(category, title):
        categories = slicer.modules.__dict__.setdefault("sampleDataSourceCategories", {})
        categories.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        checksums=None,
    ):
        source = SampleDataSource(
            sampleName, uris, fileNames, nodeNames, checksums, customDownloader, thumbnailFileName
        )
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {})
        sources.setdefault(category, []).append(source)

    def sourceForSampleName(self, sampleName):
        for sources in getattr(slicer.modules, "sampleDataSources", {}).values():
            for source in sources:
                if source.sampleName == sampleName:
                    return source
        return None

    def downloadSamples(self, sampleName):
        """The sample's volumes; an empty list without a network, as in the application."""
        source = self.sourceForSampleName(sampleName)
        if source is None or offline:
            return []
        return [_volume(name) for name in source.nodeNames]

    def downloadSample(self, sampleName):
        return self.downloadSamples(sampleName)[0]


def downloadSample(sampleName):
    return SampleDataLogic().downloadSample(sampleName)


def _volume(name):
    """A ball on an anisotropic grid."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in _SIZE), indexing="ij")
    array = (1000 * (sum(axis**2 for axis in axes) < 0.5)).astype(np.int16)
    node = slicer.util.addVolumeFromArray(array, name=slicer.mrmlScene.GenerateUniqueName(name))
    node.SetSpacing(1.0, 1.5, 2.0)
    return node
