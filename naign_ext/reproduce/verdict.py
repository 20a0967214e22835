"""From the values of several seeds to a verdict, by one rule."""

import statistics
from collections.abc import Sequence
from typing import Literal, get_args

Verdict = Literal["holds", "weak", "not shown", "fails"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
TIE = 1e-3

RULE = (
    "A comparison holds where the worst seed of NAIGN is better than the best seed of the rival; it is weak where "
    "the mean is better and the ranges overlap; it fails where the rival's worst seed is better than NAIGN's best; "
    "everything else is not shown: the rival's mean is better or equal, or fewer than two seeds have the figure. "
    "Against IGN, the variant (equal updates or equal time) with the better mean is the rival. A claim's verdict is "
    "that of its worst comparison."
)


def spread(values: Sequence[float]) -> str:
    """mean [min, max] in three digits, a single value alone, a dash for none."""
    if not values:
        return "-"
    low, high = min(values), max(values)
    shown = [
        f"{v:.3g}".replace("e+0", "e").replace("e-0", "e-") for v in (statistics.fmean(values), low, high)
    ]
    return shown[0] if len(values) == 1 or low == high else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def goodness(values: Sequence[float], better: str) -> list[float]:
    """The values turned so that larger is better; closer: to 1."""
    if better == "closer":
        return [-abs(v - 1) for v in values]
    return [-v if better == "lower" else v for v in values]


def compare_seeds(ours: Sequence[float], theirs: Sequence[float], better: str) -> Verdict:
    """The verdict on the values of several seeds; better: lower, higher or closer (to 1). See RULE."""
    if better not in ("lower", "higher", "closer"):
        raise ValueError(f"better: expected lower, higher or closer, got {better!r}")
    if min(len(ours), len(theirs)) < 2:
        return "not shown"
    ours, theirs = goodness(ours, better), goodness(theirs, better)
    if min(ours) > max(theirs):
        return "holds"
    if max(ours) < min(theirs):
        return "fails"
    ahead = statistics.fmean(ours) - statistics.fmean(theirs)
    scale = max(abs(statistics.fmean(ours)), abs(statistics.fmean(theirs)))
    return "weak" if ahead > TIE * scale else "not shown"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on several comparisons together; none at all show nothing."""
    return max(verdicts, key=VERDICTS.index) if verdicts else "not shown"


def better_rival(rivals: Sequence[Sequence[float]], better: str) -> Sequence[float]:
    """Of several rivals' values those with the best mean; empty ones are passed over."""
    present = [r for r in rivals if r]
    return max(present, key=lambda r: statistics.fmean(goodness(r, better))) if present else []
