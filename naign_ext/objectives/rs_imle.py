"""RS-IMLE (Vashist, Peng and Li, arXiv 2409.17439): latents whose samples are already near data are rejected."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from naign_ext.objectives.base import OBJECTIVES
from naign_ext.objectives.imle import Imle, ImleOptions
from naign_ext.ops import imle_knn
from naign_ext.options import option


class RsImleOptions(ImleOptions):
    """Options of plain IMLE; reject_below is the paper's epsilon, squared."""

    not_from_preset: ClassVar[tuple[str, ...]] = ("reject",)

    name: Literal["rs-imle"] = option("rs-imle", "Objective.", "Objective")  # type: ignore[assignment]
    reject: Literal["pair", "sample"] = option("sample", "What is rejected.", "Latent pool")


@OBJECTIVES.register("rs-imle")
class RsImle(Imle):
    """The IMLE loss over the samples that are at a distance of at least epsilon from every data point.

    Epsilon has to fit the data; where reject_below is not given it is chosen by :func:`default_reject_below`.
    """

    Options = RsImleOptions

    def completed(self, options: RsImleOptions) -> RsImleOptions:
        """See :meth:`MatchedObjective.completed`."""
        if options.reject_below is not None:
            return options
        return options.model_copy(update={"reject_below": default_reject_below(self.space.data)})


def default_reject_below(data: Tensor, most_rows: int = 2000) -> float:
    """A quarter of the median squared distance from a data point to its nearest other: half way to a neighbour.

    Our choice; the paper sets epsilon for each data set. data: (N, ...), its first most_rows are taken; 0 where
    there are fewer than two rows.
    """
    rows = data[:most_rows].flatten(1)
    if len(rows) < 2:
        return 0.0
    return float(torch.median(imle_knn(rows, rows, k=2).distances[:, 1])) / 4
