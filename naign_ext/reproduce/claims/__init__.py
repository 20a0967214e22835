"""The claims by name, in the order of the paper."""

from naign_ext.reproduce.claims import (
    distance_field,
    energy_density,
    faces,
    few_shot,
    fld_over_training,
    modes2d,
    ood,
    restoration,
    stability,
    trimodal,
)
from naign_ext.reproduce.claims.base import Claim

CLAIMS: dict[str, Claim] = {
    module.CLAIM.name: module.CLAIM
    for module in (
        trimodal,
        modes2d,
        fld_over_training,
        faces,
        distance_field,
        energy_density,
        ood,
        restoration,
        few_shot,
        stability,
    )
}

__all__ = ["CLAIMS", "Claim"]
