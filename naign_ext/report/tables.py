"""Results as lines of tables, for the page and for the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from naign_ext.evaluation.baselines import BASELINES, CLEAN, CORRUPTED
from naign_ext.evaluation.registry import GROUPS, METRICS, Metric
from naign_ext.evaluation.results import BEST, MAP, ONCE, TWICE, Condition, Results
from naign_ext.evaluation.subjects import RECOGNISED, DataSubject

BETTER = {"lower": "lower is better", "higher": "higher is better", "closer": "1 is best", "-": ""}


@dataclass(frozen=True)
class MetricRow:
    """A metric: its value for f or f(z), for f(f(z)) where samples are judged, and for each baseline that has it."""

    group: str
    title: str
    value: str
    twice: str
    better: str
    baselines: dict[str, str]
    text: str


@dataclass(frozen=True)
class RestorationRow:
    """A corruption of held-out images: PSNR in dB and SSIM before and after f, the gain of f by the recipe that is best
    on validation images, and that of the best restorer without a network.
    """

    what: str
    psnr_before: str
    psnr_after: str
    gain: str
    gain_clipped: str
    best_gain: str
    classical_gain: str
    ssim_before: str
    ssim_after: str

    @property
    def numbers(self) -> list[str]:
        """The cells in the order of RESTORATION_COLUMNS."""
        return [
            self.psnr_before,
            self.psnr_after,
            self.gain,
            self.gain_clipped,
            self.best_gain,
            self.classical_gain,
            self.ssim_before,
            self.ssim_after,
        ]


RESTORATION_COLUMNS = (
    "PSNR before",
    "after",
    "gain dB",
    "clipped",
    "at best",
    "classical",
    "SSIM before",
    "after ",
)


def metric_rows(results: Results) -> list[MetricRow]:
    """Everything but the restoration of images, in the order in which it was measured."""
    shown = [METRICS.find(name) for name in results.metrics]
    return [
        _metric_row(about, results)
        for about in shown
        if about.group != "restoration" and about.of is not DataSubject
    ]


def _metric_row(about: Metric, results: Results) -> MetricRow:
    own = results.own(about.name)
    twice = results.find(about.name, TWICE)
    found = results.baselines(about.name)
    return MetricRow(
        group=GROUPS[about.group],
        title=about.title,
        value=("" if own is None else format_number(own)) + _out_of(about, results),
        twice="" if twice is None else format_number(twice),
        better=BETTER[about.better],
        baselines={
            about.short: short_number(found[name]) for name, about in BASELINES.items() if name in found
        },
        text=about.text,
    )


def _out_of(about: Metric, results: Results) -> str:
    total = None if about.total is None else results.own(about.total)
    return "" if total is None else f" of {format_number(total)}"


def restoration_rows(results: Results) -> list[RestorationRow]:
    """The restoration of held-out images, a line for each corruption; empty for vectors."""

    def cell(metric: str, subject: str, form: str = ".2f") -> str:
        value = results.find(metric, subject, condition)
        return "" if value is None else f"{value:{form}}"

    rows = []
    for condition in results.conditions:
        if results.find("psnr", MAP, condition) is not None:
            rows.append(
                RestorationRow(
                    what=condition.words,
                    psnr_before=cell("psnr", CORRUPTED),
                    psnr_after=cell("psnr", MAP),
                    gain=cell("gain", MAP, "+.2f"),
                    gain_clipped=cell("gain_clipped", MAP, "+.2f"),
                    best_gain=cell("gain", BEST, "+.2f"),
                    classical_gain=_best_classical(results, condition),
                    ssim_before=cell("ssim", CORRUPTED),
                    ssim_after=cell("ssim", MAP),
                )
            )
    return rows


def _best_classical(results: Results, condition: Condition) -> str:
    gains = results.baselines("gain", condition)
    return f"{max(gains.values()):+.2f}" if gains else ""


def baseline_columns(rows: Sequence[MetricRow]) -> list[str]:
    """The baselines that any of the rows has, in the order of BASELINES."""
    used = {name for row in rows for name in row.baselines}
    return [about.short for about in BASELINES.values() if about.short in used]


def baselines_sentence(results: Results) -> str:
    """What the baselines in these tables are; empty where there are none."""
    used = baseline_columns(metric_rows(results))
    return "; ".join(f"{about.short}: {about.text}" for about in BASELINES.values() if about.short in used)


def accuracy_sentence(results: Results) -> str:
    """A classifier's accuracy on noisy held-out images before and after f; empty where there is none."""
    before, after = (results.find("accuracy", subject, RECOGNISED) for subject in (CORRUPTED, MAP))
    if before is None or after is None:
        return ""
    clean = results.find("accuracy", CLEAN)
    clear = "" if clean is None else f" (clean images: {format_number(clean)})"
    return (
        "A classifier's accuracy on held-out images with noise of sigma 1: "
        f"{format_number(before)}, after f {format_number(after)}{clear}."
    )


def memorisation_sentence(results: Results) -> str:
    """How much of the samples is copied from the training images; empty where it was not measured."""
    authentic, copies = (results.find(name, ONCE) for name in ("authenticity", "near_copies"))
    if authentic is None or copies is None:
        return ""
    fresh = results.find("authenticity", "half")
    beside = "" if fresh is None else f"; of one half of the training images against the other, {fresh:.0%}"
    return (
        f"{authentic:.0%} of the samples are farther from their nearest training image than that one is from its own "
        f"(authenticity, Alaa et al. 2022{beside}); {copies:.0%} are near copies, at least three times as near to one "
        "training image as to any other."
    )


def format_number(value: float) -> str:
    """Three significant digits, whole numbers as such."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def short_number(value: float) -> str:
    """At most six or seven characters, for columns to compare by."""
    if not math.isfinite(value) or abs(value) >= 1e5:
        return f"{value:.0e}".replace("e+", "e")
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return format_number(value) if value == int(value) else f"{value:.{digits}f}"
