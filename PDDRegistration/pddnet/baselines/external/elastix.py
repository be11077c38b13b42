"""elastix: affine, then cubic B-splines, both by mutual information in four resolutions.

The settings are elastix's own defaults of these two stages. Its programs are taken where they are found, else the
Python package itk-elastix. Source: Klein et al., IEEE TMI 29 (2010); elastix.dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pddnet.baselines.external.child import Command
from pddnet.baselines.external.packages import absent_package, package_command
from pddnet.baselines.external.program import (
    ExternalMethod,
    Files,
    absent_programs,
    found_program,
    read_field,
)
from pddnet.geometry import ImageGeometry
from pddnet.warp import DisplacementField

_PROGRAMS = ("elastix", "transformix")
_COMMON = """\
(FixedInternalImagePixelType "float")
(MovingInternalImagePixelType "float")
(UseDirectionCosines "true")
(Registration "MultiResolutionRegistration")
(NumberOfResolutions 4)
(Metric "AdvancedMattesMutualInformation")
(NumberOfHistogramBins 32)
(ImageSampler "RandomCoordinate")
(NumberOfSpatialSamples 2048)
(NewSamplesEveryIteration "true")
(CheckNumberOfSamples "true")
(MaximumNumberOfSamplingAttempts 8)
(Optimizer "AdaptiveStochasticGradientDescent")
(MaximumNumberOfIterations 256)
(Interpolator "LinearInterpolator")
(ResampleInterpolator "FinalBSplineInterpolator")
(FinalBSplineInterpolationOrder 3)
(Resampler "DefaultResampler")
(FixedImagePyramid "FixedSmoothingImagePyramid")
(MovingImagePyramid "MovingSmoothingImagePyramid")
(HowToCombineTransforms "Compose")
(WriteResultImage "false")
(ResultImageFormat "nii.gz")
"""
_AFFINE = """\
(Transform "AffineTransform")
(AutomaticScalesEstimation "true")
"""
_SPLINES = """\
(Transform "BSplineTransform")
(FinalGridSpacingInPhysicalUnits 10.0)
(GridSpacingSchedule 2.803221 1.988100 1.410000 1.000000)
"""


class Elastix(ExternalMethod):
    """elastix and transformix, or itk-elastix where they are absent."""

    name, title, by_intensity = "elastix", "elastix", True

    def absent(self) -> str | None:
        """See `Method.absent`."""
        programs = self._absent_programs()
        package = absent_package("elastix", self.peers.python)
        return None if programs is None or package is None else f"{programs}; or {package}"

    def commands(self, files: Files) -> Sequence[Command]:
        """See `ExternalMethod.commands`; itk-elastix writes its field within the time."""
        stages = [files.at("affine.txt"), files.at("splines.txt")]
        for path, settings in zip(stages, (_AFFINE, _SPLINES), strict=True):
            path.write_text(settings + _COMMON, encoding="ascii")
        threads = self.peers.threads
        if self._absent_programs() is not None:
            return [package_command("elastix", self.peers.python, files, self._field(files), threads, stages)]
        images: Command = [
            "-f",
            files.fixed,
            "-m",
            files.moving,
            "-out",
            files.folder,
            "-threads",
            str(threads),
        ]
        return [[self._program("elastix"), *images, "-p", stages[0], "-p", stages[1]]]

    def field(self, files: Files, grid: ImageGeometry) -> DisplacementField:
        """By transformix, or what the package wrote."""
        if self._absent_programs() is None:
            parameters = files.at("TransformParameters.1.txt")
            options: Command = ["-def", "all", "-tp", parameters, "-out", files.folder]
            self.run([self._program("transformix"), *options, "-threads", str(self.peers.threads)], files)
        return read_field(self._field(files), grid)

    def _field(self, files: Files) -> Path:
        return files.at("deformationField.nii.gz")

    def _absent_programs(self) -> str | None:
        return absent_programs(_PROGRAMS, self.peers.elastix, "elastix", "elastix")

    def _program(self, name: str) -> str:
        return found_program(name, self.peers.elastix) or name
