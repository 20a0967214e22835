"""NAIGN's loss with one sample for each data point: optimal one-to-one matching in place of nearest samples."""

from typing import ClassVar, Literal

from naign_ext.objectives.base import OBJECTIVES
from naign_ext.objectives.naign import Naign, NaignOptions
from naign_ext.options import option


class MatchingOptions(NaignOptions):
    """Options of NAIGN with another default match; pool_size must be at least batch_size."""

    not_from_preset: ClassVar[tuple[str, ...]] = ("match", "pool_size")

    name: Literal["matching"] = option("matching", "Objective.", "Objective")  # type: ignore[assignment]
    match: Literal["one-to-one"] = option("one-to-one", "How rows are matched.", "Latent pool")


@OBJECTIVES.register("matching")
class Matching(Naign):
    """NAIGN under the match of :class:`naign_ext.objectives.matchers.OneToOneMatcher`.

    With a pool as large as the batch every sample is pulled to a data point, as in the empirical
    2-Wasserstein distance of batch and pool, so none is left off the data.
    """

    Options = MatchingOptions
