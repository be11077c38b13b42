"""What each part of the recipe gains, on synthetic patients and on two real abdomens. Writes docs/results.md.

python Testing/results/ablation.py [--data ../shared/data]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from report import machine, parser_of, table, write_section
from variants import cells_of, head, pairs, run

from pddnet.config import LatticeLevel, Preset, load_preset

_COARSE = (0.002, 0.01, 0.05, 0.25)
# Levels that the preset no longer has, or has otherwise, as the recipe began.
_FIRST = LatticeLevel(
    step=8, spacing=16, reach=64, sub=2, features="coarse", couplings=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
)
_SECOND = LatticeLevel(step=8, spacing=8, reach=24, sub=2, features="coarse", couplings=_COARSE)
_THIRD = replace(_SECOND, step=4, reach=16)
_LEVELS = 6


def recipes(preset: Preset) -> Iterator[Preset]:
    """Presets from plain levels to the whole recipe, each with one change more; the name says which.

    Raises:
        ValueError: the preset has not the six levels that this table is about.
    """
    levels = preset.lattice_levels
    if len(levels) != _LEVELS:
        raise ValueError(f"preset {preset.name} has {len(levels)} levels; the ablation is about {_LEVELS}")
    once = [replace(level, means=1) for level in levels]
    fourth, fifth = replace(once[2], intensity_weight=2.0), replace(once[3], intensity_weight=3.0)
    sixth, last = once[4:]
    again = replace(fifth, reach=2 * fifth.step)  # one more at the same spacing
    first = (_FIRST, _SECOND, _THIRD)

    def part(name: str, rows: tuple[LatticeLevel, ...], symmetric: bool = True, body: bool = True) -> Preset:
        rows = tuple(replace(row, symmetric=symmetric and row.symmetric) for row in rows)
        return replace(preset, name=name, levels=rows, body_weights=body)

    five = (*first, fifth, again)
    yield part("plain levels L1-L3, L5, one more at its spacing", five, symmetric=False, body=False)
    yield part("+ symmetric at every level", five, body=False)
    yield part("+ body weights", five)
    yield part("+ L4", (*first, fourth, fifth, again))
    yield part("+ L6 twice (L6, L7) in place of the one more", (*first, fourth, fifth, sixth, sixth))
    whole = (*first, fourth, fifth, sixth, sixth, replace(last, symmetric=True))
    yield part("+ L8", whole)
    yield part("L7 left out, L8 one way", (*first, fourth, fifth, sixth, last))
    yield part("L2 left out", (_FIRST, _THIRD, fourth, fifth, sixth, last))
    yield part("L1 reaches 32 voxels, L3 12", (*once[:2], fourth, fifth, sixth, last))
    yield part("intensities count more at L4 and L5", tuple(once))
    yield part(f"displacements averaged twice at all but the last: {preset.name}", levels)


def main() -> None:
    """Run every variant on every pair."""
    arguments = parser_of(__doc__ or "").parse_args()
    over = pairs(arguments.data)
    rows = [
        [preset.name, *cells_of({name: run(pair, preset) for name, pair in over.items()})]
        for preset in recipes(load_preset("abdomen-ct"))
    ]
    lines = [f"Mean Dice of each pair's labels; {machine()}.", "", *table(head("recipe", list(over)), rows)]
    write_section(arguments.out, "ablation", lines)


if __name__ == "__main__":
    main()
