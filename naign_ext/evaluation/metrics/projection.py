"""Is f a projector, and not the identity?"""

from naign_ext.evaluation.projection import mean_square
from naign_ext.evaluation.registry import metric
from naign_ext.evaluation.subjects import MapSubject


@metric(
    "fixed_point_train",
    "lower",
    "projection",
    of=MapSubject,
    title="fixed-point error, train",
    text="mean |f(x) - x|^2 over the training set",
)
def _fixed_point_train(judged: MapSubject) -> float:
    train = judged.context.train
    return mean_square(judged.apply(train) - train)


@metric(
    "fixed_point_heldout",
    "lower",
    "projection",
    of=MapSubject,
    needs=("held-out data",),
    title="fixed-point error, held out",
    text="mean |f(x) - x|^2 over held-out data",
)
def _fixed_point_heldout(judged: MapSubject) -> float:
    heldout = judged.context.heldout
    return mean_square(judged.apply(heldout) - heldout)


@metric(
    "idempotence",
    "lower",
    "projection",
    of=MapSubject,
    title="idempotence error",
    text="mean |f(f(z)) - f(z)|^2 over latents z",
)
def _idempotence(judged: MapSubject) -> float:
    return mean_square(judged.twice - judged.once)


@metric(
    "non_identity",
    "-",
    "projection",
    of=MapSubject,
    title="non-identity",
    text="mean |f(z) - z|^2; near 0, f is the identity",
)
def _non_identity(judged: MapSubject) -> float:
    return mean_square(judged.once - judged.context.latents)
