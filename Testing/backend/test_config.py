"""Presets: the bundled ones, what a file may say, and how a wrong one is refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from pddnet.config import (
    CubeLevel,
    Intensity,
    LatticeLevel,
    Preset,
    available_presets,
    load_preset,
    overridden,
    parse_preset,
)
from pddnet.errors import InputError

LEVEL = '[[levels]]\nstep = 2\nspacing = 4\nreach = 6\nfeatures = "fine"\ncouplings = [0.1]\n'
VALID = f'description = "a test"\nspacing_mm = 3\n{LEVEL}'


def as_toml(preset: Preset) -> str:
    """A preset written as a file would be."""

    def lines(settings: object, leave: tuple[str, ...] = ()) -> list[str]:
        return [f"{k} = {literal(v)}" for k, v in vars(settings).items() if k not in leave]

    def literal(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return str(list(value)) if isinstance(value, tuple) else repr(value).replace("'", '"')

    text = lines(preset, ("name", "levels", "intensity"))
    text += ["[intensity]", *lines(preset.intensity)]
    for level in preset.levels:
        text += ["[[levels]]", *lines(level)]
    return "\n".join(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(VALID, "utf-8")
    return path


@pytest.mark.parametrize("name", available_presets())
def test_every_bundled_preset_loads_describes_itself_and_survives_a_round_trip(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description
    assert len(preset.lattice_levels) + len(preset.cube_levels) == len(preset.levels) > 0
    assert parse_preset(name, tomllib.loads(as_toml(preset))) == preset


@pytest.mark.parametrize("name", available_presets())
def test_a_bundled_preset_says_what_its_file_says(name: str) -> None:
    table = tomllib.loads((resources.files("pddnet") / "presets" / f"{name}.toml").read_text("utf-8"))
    preset = load_preset(name)
    for key, value in table.items():
        if key == "levels":
            for level, row in zip(preset.levels, value, strict=True):
                for setting, number in row.items():
                    wanted = tuple(number) if isinstance(number, list) else number
                    assert getattr(level, setting) == wanted
        elif key == "intensity":
            assert all(getattr(preset.intensity, setting) == number for setting, number in value.items())
        else:
            assert getattr(preset, key) == value


def test_the_presets_the_readme_names_are_there() -> None:
    assert {
        "generic",
        "abdomen-ct",
        "thorax-ct",
        "brain-mr",
        "small-structure",
        "fast",
        "pdd-net-2019",
    } <= set(available_presets())


def test_a_preset_is_read_from_a_file_named_after_it_and_a_preset_is_taken_as_it_is(file: Path) -> None:
    expected = Preset(
        "mine",
        "a test",
        (LatticeLevel(2, 4, 6, "fine", couplings=(0.1,)),),
        spacing_mm=3,
        intensity=Intensity(),
    )
    assert load_preset(file) == load_preset(str(file)) == expected
    assert load_preset(expected) is expected


@pytest.mark.parametrize("name", ["abdomen", "nowhere.toml", ""])
def test_an_unknown_name_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"preset '{name}' is not known; choose one of .*abdomen-ct.*\.toml"
    ):
        load_preset(name)


CUBE_LEVEL = "[[levels]]\ncontrol_points = {}\nlabels = {}\nreach = {}\n"
REFUSED = {
    "no TOML at all": ("spacing_mm = = 3", "mine.toml.*cannot be used"),
    "an unknown setting": ("spacing = 3\n" + VALID, "unknown setting spacing; known are .*spacing_mm"),
    "an unknown setting of a level": (VALID + "stride = 3", "level 1 has the unknown setting stride"),
    "an unknown setting of the intensity": (
        VALID + "[intensity]\nhigher = 3",
        "intensity .*unknown setting higher",
    ),
    "no levels": ('description = ""', r"no levels.*\[\[levels\]\]"),
    "levels that are a number": ('description = ""\nlevels = 3', "no levels"),
    "a level that is a number": ('description = ""\nlevels = [3]', "level 1 is 3; a table"),
    "no description": (LEVEL, "lacks description"),
    "a level without a step": (VALID.replace("step = 2\n", ""), "level 1 lacks step"),
    "two kinds of levels": (VALID + CUBE_LEVEL.format(9, 5, 0.2), "2 levels of 2 kinds"),
    "a choice there is not": (
        VALID.replace('"fine"', '"finest"'),
        "features = 'finest'; .*coarse, fine, full",
    ),
    "another global stage": ('global_stage = "rigid"\n' + VALID, "one of off, translation, affine"),
    "text for a number": ("max_voxels = 'many'\n" + VALID, "max_voxels = 'many'; a whole number"),
    "a fraction for a whole number": (VALID.replace("step = 2", "step = 2.0"), "step = 2.0; a whole number"),
    "true for a number": (VALID.replace("step = 2", "step = true"), "step = True; a whole number"),
    "text for true": (VALID + "symmetric = 'no'", "symmetric = 'no'; true or false"),
    "a number for text": (VALID.replace('"a test"', "5"), "description = 5; text"),
    "a number for a list": (VALID.replace("[0.1]", "0.1"), "couplings = 0.1; a list of numbers"),
    "text in a list": (VALID.replace("[0.1]", "[0.1, 'x']"), "a list of numbers"),
    "a negative coupling": (VALID.replace("[0.1]", "[0.1, -1]"), "couplings .* below 0"),
    "no mean over neighbours": (VALID + "means = 0", "means 0; 1 or more"),
    "no couplings": (VALID.replace("[0.1]", "[]"), "needs a list of couplings"),
    "a spacing between steps": (VALID.replace("spacing = 4", "spacing = 5"), "multiples of the step"),
    "a reach between steps": (VALID.replace("reach = 6", "reach = 7"), "multiples of the step"),
    "a step of 0": (VALID.replace("step = 2", "step = 0"), "positive multiples"),
    "a spacing that does not divide 16": (
        VALID.replace("spacing = 4", "spacing = 6"),
        "spacing 6; it must divide 16",
    ),
    "a step finer than its features": (VALID.replace("step = 2", "step = 1"), "multiple of sub x 2"),
    "more sub-cells than the step has": (VALID + "sub = 2", "multiple of sub x 2"),
    "a negative spacing": (VALID.replace("spacing_mm = 3", "spacing_mm = -3"), "a spacing of 0 or more"),
    "too few voxels": ("max_voxels = 100\n" + VALID, "at least 4096 voxels"),
    "a temperature of 0": ("temperature = 0\n" + VALID, "a temperature above 0"),
    "a refinement stride of 3": ("refinement_stride = 3\n" + VALID, "a stride of 1 or 2"),
    "a window upside down": (VALID + "[intensity]\nlow = 300.0", "low must be below high"),
    "a percentile above 100": (VALID + "[intensity]\nhigh_percentile = 101", "0 to 100"),
    "a divisor of 0": (VALID + "[intensity]\ndivisor = 0", "a divisor above 0"),
    "an even number of labels": (
        'description = ""\n' + CUBE_LEVEL.format(9, 4, 0.2),
        "an odd number of 3 or more",
    ),
    "one control point": ('description = ""\n' + CUBE_LEVEL.format(1, 5, 0.2), "2 or more control points"),
    "a reach beyond the cube": ('description = ""\n' + CUBE_LEVEL.format(9, 5, 2.5), r"reach in \(0, 2\]"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_wrong_file_is_refused_and_the_message_says_why(fault: str, file: Path) -> None:
    text, message = REFUSED[fault]
    file.write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        load_preset(file)
    with pytest.raises(InputError, match=r"mine\.toml' cannot be used"):
        load_preset(file)


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"description = '\xff\xfe'")
    with pytest.raises(InputError, match=r"mine\.toml' cannot be used"):
        load_preset(file)


def test_levels_are_offered_by_kind() -> None:
    lattice = load_preset("fast")
    cube = Preset("cube", "", (CubeLevel(9, 5, 0.2),))
    assert lattice.lattice_levels == lattice.levels
    assert lattice.cube_levels == cube.lattice_levels == ()
    assert cube.cube_levels == cube.levels


def test_settings_made_in_code_are_checked_too() -> None:
    with pytest.raises(InputError, match="multiples of the step"):
        replace(load_preset("fast").lattice_levels[0], reach=7)
    with pytest.raises(InputError, match="0 levels"):
        Preset("empty", "", ())


def test_nothing_overridden_is_the_preset_itself() -> None:
    for name in available_presets():
        assert overridden(load_preset(name)) == load_preset(name)


def test_only_the_first_levels_remain() -> None:
    preset = load_preset("abdomen-ct")
    assert overridden(preset, levels=3).levels == preset.levels[:3]
    assert overridden(preset, levels=len(preset.levels)) == preset


def test_smoothness_multiplies_couplings_and_divides_the_scale_of_min_convolution() -> None:
    level = LatticeLevel(step=2, spacing=4, reach=6, features="fine", couplings=(0.1, 0.4), scale=3.0)
    paper = replace(level, regulariser="min-convolution", couplings=())
    smoother = overridden(Preset("", "", (level, paper)), smoothness=2.0).lattice_levels
    assert smoother == (replace(level, couplings=(0.2, 0.8), means=2), replace(paper, scale=1.5))


@pytest.mark.parametrize(
    ("smoothness", "means"), [(0.01, 1), (0.5, 2), (0.8, 3), (1.0, 3), (1.3, 3), (2.0, 4), (8.0, 6)]
)
def test_each_doubling_of_smoothness_adds_a_mean_and_one_always_stays(smoothness: float, means: int) -> None:
    level = LatticeLevel(step=2, spacing=4, reach=6, features="fine", couplings=(0.1,), means=3)
    assert overridden(Preset("", "", (level,)), smoothness=smoothness).lattice_levels[0].means == means


def test_instance_iterations_go_where_the_preset_refines() -> None:
    lattice = overridden(load_preset("fast"), instance_iterations=7)
    assert lattice.refinement_iterations == 7
    cube = overridden(load_preset("pdd-net-2019"), levels=1, instance_iterations=7)
    assert [level.instance_iterations for level in cube.cube_levels] == [7]
    assert cube.refinement_iterations == 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fast", {"levels": 0}, "levels is 0 and preset fast has 4; choose 1 to 4, or leave it out"),
        ("fast", {"levels": 5}, "choose 1 to 4"),
        ("fast", {"smoothness": 0.0}, "smoothness is 0.0; a number above 0 is needed"),
        ("fast", {"smoothness": float("nan")}, "a number above 0"),
        ("fast", {"instance_iterations": -1}, "instance_iterations is -1; 0 .none. or more"),
        ("pdd-net-2019", {"smoothness": 1.2}, "published network.*leave it at 1, or choose another preset"),
    ],
)
def test_an_override_out_of_range_is_refused_with_what_is_needed(
    name: str, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        overridden(load_preset(name), **changes)  # type: ignore[arg-type]


TRAINED = """
grid_size = [48, 66, 40]
spacing_mm = 0.75
weights = "best.pt"
[[levels]]
control_points = [12, 16, 10]
labels = [7, 9, 5]
reach = [0.3, 0.2, 0.4]
"""


def test_a_level_of_the_network_may_count_differently_along_each_axis() -> None:
    (level,) = parse_preset("mine", tomllib.loads("description = 'a'\n" + TRAINED)).cube_levels
    assert (level.points_xyz, level.labels_xyz) == ((12, 16, 10), (7, 9, 5))
    assert level.reach_xyz == (0.3, 0.2, 0.4)
    assert level.entries == 12 * 16 * 10 * 7 * 9 * 5
    same = CubeLevel(9, 5, 0.2)
    assert (same.points_xyz, same.labels_xyz, same.reach_xyz) == ((9,) * 3, (5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[7, 9, 5]", "[7, 8, 5]", "an odd number of 3 or more labels"),
        ("[12, 16, 10]", "[12, 16]", "a whole number or three are needed"),
        ("[12, 16, 10]", "[12, 16, 1.5]", "a whole number or three are needed"),
        ("[0.3, 0.2, 0.4]", '"far"', "a number or three are needed"),
        ("[0.3, 0.2, 0.4]", "[0.3, 0.2, 2.4]", r"a reach in \(0, 2\]"),
        ("[48, 66, 40]", "[48, 65, 40]", "three even sizes of 8 or more voxels"),
        ("[48, 66, 40]", "[48, 66]", "three even sizes of 8 or more voxels"),
        ("[48, 66, 40]", '["a"]', "a list of numbers is needed"),
        ("spacing_mm = 0.75", "spacing_mm = 0", "a spacing_mm above 0"),
    ],
)
def test_what_a_trained_level_or_its_grid_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    table = tomllib.loads("description = 'a'\n" + TRAINED.replace(old, new))
    with pytest.raises(InputError, match=message):
        parse_preset("mine", table)
    with pytest.raises(InputError, match="levels of the network are needed with it"):
        replace(load_preset("fast"), grid_size=(16, 16, 16))


def test_weights_beside_a_presets_file_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text("description = 'a'\n" + TRAINED, "utf-8")
    assert (
        load_preset(tmp_path / "mine.toml").weights == "best.pt"
    )  # a name, as long as there is no such file
    (tmp_path / "best.pt").write_bytes(b"")
    monkeypatch.chdir("/")
    assert load_preset(tmp_path / "mine.toml").weights == str(tmp_path / "best.pt")
