"""Draws SyntheticAbdomens.png, the picture of the made-up pair in Slicer's Sample Data module: a coronal slice of each.

Needs matplotlib and the package; the picture is written into the module's folder.
"""

from pathlib import Path

import matplotlib.pyplot as plt

from pddnet.synthetic import synthetic_patient

SEEDS, SIZE, SPACING_MM = (6, 5), (128, 108, 150), 3.0  # as `pddnet.job.SyntheticRequest`
WINDOW_HU = (-160, 240)
INCHES, PIXELS_PER_INCH = (2.6, 2.8), 100


def draw(path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=INCHES, dpi=PIXELS_PER_INCH, facecolor="black")
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.02)
    for seed, place in zip(SEEDS, axes, strict=True):
        scan = synthetic_patient(seed, SIZE, SPACING_MM).ct.data  # (D, H, W), head at the end
        coronal = scan[:, scan.shape[1] // 2, :]
        place.imshow(coronal, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], origin="lower")
        place.axis("off")
    figure.savefig(path, facecolor="black")


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    draw(root / "PDDRegistration" / "Resources" / "Icons" / "SyntheticAbdomens.png")
