"""Options of the objectives that search a latent pool."""

from typing import Literal

from pydantic import FiniteFloat, model_validator

from naign_ext.objectives.space import FeatureOptions
from naign_ext.options import MOST_ROWS, MOST_STEPS, option


class MatchOptions(FeatureOptions):
    """How each data point finds the latent whose sample is nearest."""

    norm: Literal["l2", "l1"] = option(
        "l2", "Norm of the loss terms; search and features are always Euclidean.", "Objective"
    )
    latent_scale: FiniteFloat = option(1.0, "Standard deviation of the latents z.", "Latent pool", gt=0)
    pool_size: int = option(
        256, "Samples in the pool that every match searches.", "Latent pool", ge=1, le=MOST_ROWS
    )
    pool_chunk: int | None = option(
        None,
        "Rows of the pool in memory at a time; default: chosen from free memory. Does not change the result.",
        "Latent pool",
        ge=1,
        le=MOST_ROWS,
    )
    match: Literal["batch", "dataset", "one-to-one", "adaptive"] = option(
        "batch",
        "batch: the nearest sample of each row of a batch; dataset: of the whole data set at once, the winners' "
        "latents kept; one-to-one: as batch, but no sample serves two rows and the sum of the squared distances "
        "is least; adaptive: as dataset, but a row is matched anew only when its sample has come nearer "
        "(Adaptive IMLE).",
        "Latent pool",
    )
    resample_every: int = option(
        1,
        "Steps a pool is kept before new latents are drawn (dataset, adaptive: before the next match).",
        "Latent pool",
        ge=1,
        le=MOST_STEPS,
    )
    warm_start: bool = option(
        False,
        "dataset: the last match's winners compete again, beside the new pool, so that a smaller pool does.",
        "Latent pool",
    )
    reject_below: FiniteFloat | None = option(
        None,
        "Samples at a squared distance below this from data are rejected; of features, where a match has some.",
        "Latent pool",
        ge=0,
    )
    reject: Literal["pair", "sample"] = option(
        "pair",
        "What is rejected: the pair alone, or the sample for every row, where any row of the data set is that "
        "near (RS-IMLE).",
        "Latent pool",
    )
    adaptive_decay: FiniteFloat = option(
        0.04,
        "adaptive: a row is matched anew when its squared distance falls below (1 - this) times what it was at "
        "the last match.",
        "Latent pool",
        gt=0,
        lt=1,
    )
    adaptive_patience: int = option(
        7, "adaptive: matches that pass before a row may be matched anew.", "Latent pool", ge=1, le=MOST_STEPS
    )
    adaptive_limit: int = option(
        30,
        "adaptive: matches after which a row is matched anew in any case.",
        "Latent pool",
        ge=1,
        le=MOST_STEPS,
    )

    @model_validator(mode="after")
    def _one_to_one_rejects_nothing(self) -> "MatchOptions":
        if self.match == "one-to-one" and self.reject_below is not None:
            raise ValueError(
                f"reject_below: expected none with match one-to-one, got {self.reject_below}; the pairs left may "
                "not match every row"
            )
        return self

    @model_validator(mode="after")
    def _only_the_dataset_match_starts_warm(self) -> "MatchOptions":
        if self.warm_start and self.match != "dataset":
            raise ValueError(
                f"warm_start: expected match dataset, which knows every row's last winner, got {self.match}"
            )
        return self
