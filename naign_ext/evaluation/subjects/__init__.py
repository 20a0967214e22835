"""What metrics judge: sets of samples, maps, detectors, densities, restored images; f's own and those of baselines.

Each kind says which of its subjects come from f (`own`) and which need no network (`baselines`).
"""

from naign_ext.evaluation.subjects.base import DataSubject, Subject
from naign_ext.evaluation.subjects.densities import Density
from naign_ext.evaluation.subjects.images import RECOGNISED, RESTORATIONS, Recognised, Restored
from naign_ext.evaluation.subjects.maps import Detector, MapSubject
from naign_ext.evaluation.subjects.samples import SampleSet

__all__ = [
    "RECOGNISED",
    "RESTORATIONS",
    "DataSubject",
    "Density",
    "Detector",
    "MapSubject",
    "Recognised",
    "Restored",
    "SampleSet",
    "Subject",
]
