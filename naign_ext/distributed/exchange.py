"""What the processes of a run tell each other in every update, by one collective."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from naign_ext.distributed.processes import Processes


@dataclass(frozen=True)
class Exchanged:
    """What all processes have told. means: of each scalar; requests: the names that at least one process asked for."""

    means: dict[str, float]
    requests: tuple[str, ...]


def begin_exchange(
    processes: Processes, scalars: Mapping[str, Tensor], requests: Mapping[str, bool]
) -> Callable[[], Exchanged]:
    """Begin to exchange scalars and requests; what this returns waits for the end, so that work fits in between.

    scalars: 0-dimensional, of one device and dtype, the same names in every process.
    requests: what this process asks of all or does not, such as to stop; the same names in every process.
    """
    values = torch.stack(list(scalars.values()))
    if not processes.is_distributed:
        asked = tuple(name for name, wanted in requests.items() if wanted)
        return lambda: Exchanged(dict(zip(scalars, values.tolist(), strict=True)), asked)
    sums = torch.cat([values, values.new_tensor(list(requests.values()))])
    work = dist.all_reduce(sums, async_op=True)

    def finish() -> Exchanged:
        work.wait()
        means = sums.div_(processes.world_size).tolist()
        asked = tuple(name for name, mean in zip(requests, means[len(scalars) :], strict=True) if mean > 0)
        return Exchanged(dict(zip(scalars, means, strict=False)), asked)

    return finish
