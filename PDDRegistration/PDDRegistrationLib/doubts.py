"""Reasons not to trust a registration everywhere, in words, from the worker's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

UNSURE_MM = 5.0  # mean uncertainty above this: the match is a guess
INEXACT_MM = 1.0  # mean residual above this: transform and inverse do not undo each other
WORSE_DICE = 0.02  # overlap may differ by this without meaning anything
_NAMED = 4


def doubts(report: Mapping[str, Any]) -> list[str]:
    """Warnings for whoever looks at a result, the gravest first; none for a result that looks right."""
    segments = report.get("segments") or ()
    found = [
        _folding(report, segments),
        _unsure(report, segments),
        _worse(segments),
        _fartherLandmarks(report),
        _inexactInverse(report),
        report.get("fallback") or "",
    ]
    return [text for text in found if text]


def _folding(report: Mapping[str, Any], segments: Sequence[Mapping[str, Any]]) -> str:
    percent = report.get("folding_percent") or 0.0
    if percent <= 0:
        return ""
    text = _(
        "The deformation folds over itself in {percent:.3g} % of the fixed scan; it cannot be right there."
    )
    return text.format(percent=percent) + _concerning(_above(segments, "folding_percent", 0.0))


def _unsure(report: Mapping[str, Any], segments: Sequence[Mapping[str, Any]]) -> str:
    mean = (report.get("uncertainty_mm") or {}).get("mean") or 0.0
    names = _above(segments, "uncertainty_mean_mm", UNSURE_MM)
    if mean > UNSURE_MM:
        text = _("The match is uncertain, by {mean:.1f} mm on average.").format(mean=mean)
    elif names:
        text = _("The match is uncertain in parts, by more than {limit:.0f} mm.").format(limit=UNSURE_MM)
    else:
        return ""
    return text + _concerning(names)


def _worse(segments: Sequence[Mapping[str, Any]]) -> str:
    names = [
        segment["name"]
        for segment in segments
        if None not in (segment.get("dice_before"), segment.get("dice_after"))
        and segment["dice_after"] < segment["dice_before"] - WORSE_DICE
    ]
    return _("Overlaps less than before: {names}.").format(names=_listed(names)) if names else ""


def _fartherLandmarks(report: Mapping[str, Any]) -> str:
    landmarks = report.get("landmarks_mm") or {}
    before, after = (
        [mm for mm in landmarks.get(when) or () if mm is not None] for when in ("before", "after")
    )
    if not before or not after or sum(after) <= sum(before):
        return ""
    return _("The landmarks are farther apart than before the registration.")


def _inexactInverse(report: Mapping[str, Any]) -> str:
    mean = (report.get("inverse_residual_mm") or {}).get("mean") or 0.0
    if mean <= INEXACT_MM:
        return ""
    return _(
        "Transform and inverse differ by {mean:.1f} mm on average; do not use one for the other's way back."
    ).format(mean=mean)


def _above(segments: Sequence[Mapping[str, Any]], key: str, limit: float) -> list[str]:
    return [segment["name"] for segment in segments if (segment.get(key) or 0.0) > limit]


def _concerning(names: Sequence[str]) -> str:
    return " " + _("Concerns: {names}.").format(names=_listed(names)) if names else ""


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    text = ", ".join(names[:_NAMED])
    return _("{names} and {count} more").format(names=text, count=rest) if rest > 0 else text
