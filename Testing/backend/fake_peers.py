"""Stand-ins of the programs and packages that we compare with: they "find" a known affine map, as each would say it.

What each writes is told from its documentation and from files that the real ones wrote, not from the adapters. The map
is in `truth.json` beside the programs: a 4x4 matrix, fixed -> moving point, mm LPS, of the files that they are given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

DEEDS = ("linearBCV", "deedsBCV", "applyBCVfloat")
NIFTYREG = ("reg_aladin", "reg_f3d", "reg_transform")
ELASTIX = ("elastix", "transformix")

_COMMON = '''\
import json, os, struct, sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HERE = Path({here!r})
TRUTH = np.array(json.loads((HERE / "truth.json").read_text()))


def note(tool, *words):
    """What it was called with, and what it saw of its surroundings."""
    with open(HERE / "calls.jsonl", "a") as file:
        threads = {{name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")}}
        json.dump({{"tool": tool, "words": list(words), "folder": os.getcwd(), **threads}}, file)
        file.write("\\n")


def to_lps(image):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def index_of(image):
    """(D, H, W, 3) as x, y, z."""
    lines = [np.arange(n, dtype=float) for n in image.GetSize()[::-1]]
    return np.stack(np.meshgrid(*lines, indexing="ij")[::-1], -1)


def displacements(image):
    """(D, H, W, 3), mm LPS, on an image's grid."""
    matrix = to_lps(image)
    points = index_of(image) @ matrix[:3, :3].T + matrix[:3, 3]
    return points @ TRUTH[:3, :3].T + TRUTH[:3, 3] - points


def voxel_map(image):
    """The map in voxel indices (x, y, z) of a grid that both images share."""
    return np.linalg.inv(to_lps(image)) @ TRUTH @ to_lps(image)


def write_field(image, path):
    field = sitk.GetImageFromArray(displacements(image), isVector=True)
    field.CopyInformation(image)
    sitk.WriteImage(field, str(path))
'''

_PROGRAM = '''
def linearBCV(given):
    sizes = {sitk.ReadImage(given[option]).GetSize() for option in ("-F", "-M")}
    assert len(sizes) == 1, "Inconsistent image sizes"
    Path(given["-O"] + "_matrix.txt").write_text("found")


def deedsBCV(given):
    assert Path(given["-A"]).read_text() == "found"
    assert sitk.ReadImage(given["-F"]).GetSize() == sitk.ReadImage(given["-M"]).GetSize()
    Path(given["-O"] + "_displacements.dat").write_text("found too")


def applyBCVfloat(given):
    """Trilinear at mapped voxels, which are held inside the image."""
    assert Path(given["-A"]).read_text() == "found"
    assert Path(given["-O"] + "_displacements.dat").read_text() == "found too"
    image = sitk.ReadImage(given["-M"])
    values, matrix = sitk.GetArrayFromImage(image).astype(float), voxel_map(image)
    index = index_of(image) @ matrix[:3, :3].T + matrix[:3, 3]
    index = np.clip(index, 0, np.array(image.GetSize()) - 1)
    low = np.minimum(np.floor(index), np.array(image.GetSize()) - 2).astype(int)
    rest, out = index - low, 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, rest, 1 - rest), -1)
        x, y, z = np.moveaxis(low + corner, -1, 0)
        out = out + weight * values[z, y, x]
    warped = sitk.GetImageFromArray(out.astype(np.float32))
    warped.CopyInformation(image)
    sitk.WriteImage(warped, given["-D"])


def reg_aladin(given):
    assert Path(given["-flo"]).exists()
    Path(given["-aff"]).write_text("linear")


def reg_f3d(given):
    assert Path(given["-aff"]).read_text() == "linear"
    Path(given["-cpp"]).write_text("control points")


def reg_transform(given):
    """A NIfTI file of five dimensions as the real one writes it: plain vectors in mm, RAS, component by component."""
    import gzip

    reference, (control, out) = sitk.ReadImage(given["-ref"]), given["-disp"]
    assert Path(control).read_text() == "control points"
    vectors = displacements(reference) * (-1, -1, 1)
    header = bytearray(gzip.decompress(Path(given["-ref"]).read_bytes())[:352])
    struct.pack_into("<8h", header, 40, 5, *reference.GetSize(), 1, 3, 1, 1)
    struct.pack_into("<3fh", header, 56, 1, 0, 0, 1007)
    struct.pack_into("<2h", header, 70, 16, 32)
    header[328:344] = b"NREG_TRANS".ljust(16, bytes(1))
    data = np.moveaxis(vectors, -1, 0).astype("<f4").tobytes()
    Path(out).write_bytes(gzip.compress(bytes(header) + data))


def elastix(given):
    for file in PARAMETERS:
        assert "(Transform " in Path(file).read_text()
    assert len(PARAMETERS) == 2
    (Path(given["-out"]) / "TransformParameters.1.txt").write_text("splines")


def transformix(given):
    assert Path(given["-tp"]).read_text() == "splines" and given["-def"] == "all"
    fixed = sitk.ReadImage(str(Path(given["-out"]) / "fixed.nii.gz"))
    write_field(fixed, Path(given["-out"]) / "deformationField.nii.gz")


words = sys.argv[1:]
PARAMETERS = [words[n + 1] for n, word in enumerate(words) if word == "-p"]
given = {word: words[n + 1] for n, word in enumerate(words[:-1]) if word.startswith("-")}
if "-disp" in words:
    given["-disp"] = words[words.index("-disp") + 1 :][:2]
tool = Path(sys.argv[0]).name
note(tool, *words)
globals()[tool](given)
'''

_PACKAGES = {
    "ants.py": """
def image_read(path):
    return path


def registration(fixed, moving, type_of_transform, outprefix):
    assert type_of_transform == "SyN" and Path(fixed).exists() and Path(moving).exists()
    note("ants", fixed, moving)
    Path(outprefix + "0GenericAffine.mat").write_text("affine")
    return {"fwdtransforms": [outprefix + "0GenericAffine.mat"]}


def apply_transforms(fixed, moving, transforms, compose):
    assert Path(transforms[0]).read_text() == "affine"
    write_field(sitk.ReadImage(fixed), compose + "comptx.nii.gz")
    return compose + "comptx.nii.gz"
""",
    "picsl_greedy.py": """
class Greedy3D:
    def execute(self, line):
        words = line.split()
        note("greedy", *words)
        if "-a" in words:
            Path(words[words.index("-o") + 1]).write_text("affine")
        elif "-it" in words:
            assert Path(words[words.index("-it") + 1]).read_text() == "affine"
            Path(words[words.index("-o") + 1]).write_text("warp")
        else:
            warp, affine = words[words.index("-r") + 1 :][:2]
            assert (Path(warp).read_text(), Path(affine).read_text()) == ("warp", "affine")
            write_field(sitk.ReadImage(words[words.index("-rf") + 1]), words[words.index("-rc") + 1])
""",
    "nibabel.py": '''
class load:
    def __init__(self, path):
        self.path = path

    def get_fdata(self, dtype):
        """(W, H, D), as nibabel reads it."""
        os.environ["FAKE_LAST_SCAN"] = self.path
        return sitk.GetArrayFromImage(sitk.ReadImage(self.path)).T.astype(dtype)
''',
    "convexAdam/convex_adam_MIND.py": '''
def convex_adam_pt(fixed, moving, device, dtype):
    """Voxels along D, H, W."""
    image = sitk.ReadImage(os.environ["FAKE_LAST_SCAN"])
    assert fixed.shape == moving.shape == image.GetSize()[::-1]
    note("convexadam")
    matrix, index = voxel_map(image), index_of(image)
    return (index @ matrix[:3, :3].T + matrix[:3, 3] - index)[..., ::-1]
''',
    "itk.py": """
F = float


class ParameterObject:
    @classmethod
    def New(cls):
        made = cls()
        made.files = []
        return made

    def AddParameterFile(self, file):
        self.files.append(file)


def set_nthreads(threads):
    note("itk", threads)


def imread(path, kind):
    return path


def elastix_registration_method(fixed, moving, parameter_object, number_of_threads, log_to_console):
    assert len(parameter_object.files) == 2 and all(Path(file).exists() for file in parameter_object.files)
    return None, fixed


def transformix_deformation_field(moving, found):
    return found


def imwrite(found, path):
    write_field(sitk.ReadImage(found), path)
""",
}
_DISTRIBUTIONS = ("antspyx", "picsl_greedy", "convexAdam", "itk_elastix")


def install_programs(folder: Path, truth: npt.NDArray[np.float64], names: tuple[str, ...]) -> None:
    """Executables of these names in a folder."""
    _install(folder, truth)
    for name in names:
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\n{_COMMON.format(here=str(folder))}{_PROGRAM}", encoding="utf-8"
        )
        program.chmod(0o755)


def install_packages(folder: Path, truth: npt.NDArray[np.float64]) -> None:
    """Packages that Python finds where `folder` is on its path."""
    _install(folder, truth)
    for name, text in _PACKAGES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(_COMMON.format(here=str(folder)) + text, encoding="utf-8")
    for name in _DISTRIBUTIONS:
        information = folder / f"{name}-1.0.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def calls(folder: Path) -> list[dict[str, object]]:
    """What the stand-ins in a folder were called with."""
    lines = (folder / "calls.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _install(folder: Path, truth: npt.NDArray[np.float64]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "truth.json").write_text(json.dumps(truth.tolist()), encoding="utf-8")
