"""Samples of a pool, chunk by chunk, and the search that runs beside their generation."""

from collections import deque
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from naign_ext.memory import automatic_chunk, bytes_per_row


def without_wrapper(f: nn.Module) -> nn.Module:
    """f without DistributedDataParallel around it: the same weights, nothing sent."""
    return f.module if isinstance(f, DistributedDataParallel) else f


def innermost(f: nn.Module) -> nn.Module:
    """The network itself, without DistributedDataParallel and torch.compile around it."""
    inner = getattr(without_wrapper(f), "_orig_mod", without_wrapper(f))
    assert isinstance(inner, nn.Module)
    return inner


def sample_in_evaluation(f: nn.Module, latents: Tensor) -> Tensor:
    """f(latents) in evaluation and inference mode, in the dtype f answers in; f's mode is restored.

    Evaluation mode is deliberate. In training mode batch normalisation would make a sample depend on the
    chunk it is in, and every pool would shift the running statistics by forward passes that no gradient
    follows. With the running statistics each sample is a function of its latent alone, and it is the sample
    that the finished f will draw. The result cannot take part in autograd.
    """
    f = without_wrapper(f)
    training = f.training
    f.eval()
    try:
        with torch.inference_mode():
            return f(latents)  # type: ignore[no-any-return]
    finally:
        f.train(training)


def chunk_for(f: nn.Module, shape: tuple[int, ...], device: torch.device, more: int = 0) -> int:
    """Rows of a pool that f should take at a time; see :func:`naign_ext.memory.automatic_chunk`.

    more: bytes that a row takes after f.
    """
    return automatic_chunk(bytes_per_row(innermost(f), shape, device) + more, device)


@cache
def _side_stream(cuda: Any, device: torch.device) -> Any:
    """Always the same one: torch keeps memory that was freed on a stream for that stream alone."""
    return cuda.Stream(device)


class SideStream:
    """Runs work on chunks beside the caller: on a second CUDA stream; at once where the device is no GPU.

    Work is done in the order it is given. At most two chunks are held: before a third is accepted the host waits
    for the first one's work, so memory stays O(chunk) however far the host runs ahead. On leaving the context the
    caller's stream waits for all work. streams: for tests, in place of torch.cuda.

        with SideStream(device) as side_stream:
            for chunk in chunks:
                side_stream.run(search.update, chunk)
    """

    HELD = 2

    def __init__(self, device: torch.device, streams: Any = None) -> None:
        self._cuda = streams or (torch.cuda if device.type == "cuda" else None)
        self._device = device
        self._held: deque[tuple[Any, Tensor]] = deque()

    def __enter__(self) -> "SideStream":
        if self._cuda is not None:
            self._main = self._cuda.current_stream(self._device)
            self._side = _side_stream(self._cuda, self._device)
            # Work may read what the caller's stream has prepared, and memory freed there.
            self._side.wait_stream(self._main)
        return self

    def run(self, work: Callable[[Tensor], object], chunk: Tensor) -> None:
        """Run work(chunk) after all that made the chunk."""
        if self._cuda is None:
            work(chunk)
            return
        # The chunk is kept until its work is done: its memory belongs to the caller's stream.
        self._side.wait_event(self._main.record_event())
        with self._cuda.stream(self._side):
            work(chunk)
            self._held.append((self._side.record_event(), chunk))
        if len(self._held) == self.HELD:
            done, _ = self._held[0]
            done.synchronize()
            self._held.popleft()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda is not None:
            self._main.wait_stream(self._side)
            self._held.clear()
