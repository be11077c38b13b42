"""What each part of the recipe gains, on synthetic patients and on two real abdomens. Writes docs/results.md.

python Testing/results/ablation.py [--data ../shared/data]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from report import machine, parser_of, table, write_section
from variants import cells_of, head, pairs, run

from pddnet.config import LatticeLevel, Preset, load_preset

_LEVELS = 7


def recipes(preset: Preset) -> Iterator[Preset]:
    """Presets from plain levels to the whole recipe, each with one part more; the name says which.

    Raises:
        ValueError: the preset has not the seven levels that this table is about.
    """
    levels = preset.lattice_levels
    if len(levels) != _LEVELS:
        raise ValueError(f"preset {preset.name} has {len(levels)} levels; the ablation is about {_LEVELS}")
    first, fifth, sixth, last = levels[:3], levels[4], levels[5], levels[6]
    again = replace(fifth, reach=2 * fifth.step)  # one more at the same spacing

    def part(name: str, rows: tuple[LatticeLevel, ...], symmetric: bool = True, body: bool = True) -> Preset:
        rows = tuple(replace(row, symmetric=symmetric and row.symmetric) for row in rows)
        return replace(preset, name=name, levels=rows, body_weights=body)

    five = (*first, fifth, again)
    yield part("plain levels L1-L3, L5, one more at its spacing", five, symmetric=False, body=False)
    yield part("+ symmetric at every level", five, body=False)
    yield part("+ body weights", five)
    yield part("+ L4", (*levels[:5], again))
    yield part("+ L6 twice (L6, L7) in place of the one more", (*levels[:6], sixth))
    yield part("+ L8", (*levels[:6], sixth, replace(last, symmetric=True)))
    yield part(f"L7 left out, L8 one way: {preset.name}", levels)


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
