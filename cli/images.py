"""Images that the user names, or that lie in folders that the user names, read chunk by chunk."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from naign_cli.guard import FAILED, Mistake
from naign_cli.output import say

if TYPE_CHECKING:
    from torch import Tensor

    from naign_ext.data.archives import Source
    from naign_ext.projector import Projector

CHUNK = 512
"""Images that are held at a time; as many as a Projector takes through f at once, so that no bit depends on it."""


class Chunk(NamedTuple):
    """Some of many images: their places among all, and (n, *sample_shape)."""

    places: list[int]
    images: "Tensor"


def split(images: "Tensor") -> Iterator[Chunk]:
    """Images that are in memory already, as chunks."""
    for first in range(0, len(images), CHUNK):
        part = images[first : first + CHUNK]
        yield Chunk(list(range(first, first + len(part))), part)


class GivenImages:
    """Image files and folders, at the projector's size and number of channels.

    names: of all, in their order; where two have one name, that of the folder stands before it. skipped: (name,
    reason) of those that could not be read, known when all chunks were taken.

    Raises:
        Mistake: a path is not there, a folder has no images, or f maps vectors.
    """

    def __init__(self, paths: Sequence[Path], projector: "Projector") -> None:
        from naign_ext.data.skipped import warn_of_skipped

        if projector.kind != "image":
            raise Mistake(f"images: this run's f maps vectors of shape {projector.sample_shape}, not images")
        self._channels, height, width = projector.sample_shape
        self._size = height, width
        self._sources = [_source(path) for path in paths]
        for source, _ in self._sources:
            warn_of_skipped(source.label, (), source.left_out)
        self.names = _told_apart(
            [(folder, name) for source, folder in self._sources for name in source.names]
        )
        self.skipped: list[tuple[str, str]] = []

    def chunks(self) -> Iterator[Chunk]:
        """All that can be read, CHUNK at a time; the others are named on stderr and left out.

        Raises:
            Mistake: there is no other.
        """
        import torch

        from naign_ext.data.images import to_network_scale

        held: dict[int, Tensor] = {}
        taken = 0
        for place, pixels in enumerate(self._each()):
            if pixels is not None:
                held[place] = torch.from_numpy(pixels.copy())
                taken += 1
            if len(held) == CHUNK:
                yield Chunk(list(held), to_network_scale(torch.stack(list(held.values()))))
                held = {}
        if held:
            yield Chunk(list(held), to_network_scale(torch.stack(list(held.values()))))
        if not taken:
            raise Mistake(_none_readable(self.skipped))

    def _each(self) -> Iterator[Any]:
        """The pixels of every image, uint8 (C, H, W), or None where they cannot be read."""
        from naign_ext.data.archives import UnreadableFile
        from naign_ext.data.images import read_each

        place = 0
        for source, _ in self._sources:
            for _, found in read_each(source, source.names, image_size=self._size, channels=self._channels):
                if isinstance(found, UnreadableFile):
                    self.skipped.append((self.names[place], found.reason))
                    if len(self.names) > 1:
                        say(f"skipped: {self.names[place]}: {found.reason}")
                yield None if isinstance(found, UnreadableFile) else found[0]
                place += 1

    def skipped_rows(self) -> list[dict[str, str]]:
        """What was left out, for --json."""
        return [{"name": name, "reason": reason} for name, reason in self.skipped]


def finish(*given: GivenImages | None) -> None:
    """Say how many images were left out, and end with exit code 1 where one was."""
    found = [images for images in given if images is not None]
    skipped, total = sum(len(images.skipped) for images in found), sum(len(images.names) for images in found)
    if skipped:
        say(f"{skipped} of {total} images skipped; the others are done")
        raise typer.Exit(FAILED)


def _source(path: Path) -> tuple["Source", str]:
    """Where the images of a path come from, with their names alone, and the name of their folder."""
    from naign_ext.data.archives import FileSource, FolderSource
    from naign_ext.data.images import IMAGE_SUFFIXES, is_image_name, left_out
    from naign_ext.data.skipped import reasons_text

    if not path.is_dir():
        # Whether it is there shows before anything is done.
        path.stat()
        return FileSource(path), path.resolve().parent.name
    source = FolderSource(path)
    source.left_out = left_out(source)
    source.names = [name for name in source.names if is_image_name(name)]
    if not source.names:
        others = f"; left out: {reasons_text(source.left_out)}" if source.left_out else ""
        raise Mistake(f"{path}: no images in it (looked for {', '.join(IMAGE_SUFFIXES)}){others}")
    return source, path.resolve().name


def _told_apart(found: Sequence[tuple[str, str]]) -> list[str]:
    times = Counter(name for _, name in found)
    return [f"{folder}/{name}" if times[name] > 1 and folder else name for folder, name in found]


def _none_readable(skipped: Sequence[tuple[str, str]]) -> str:
    from naign_ext.data.skipped import reasons_text

    if len(skipped) == 1:
        name, reason = skipped[0]
        return f"{name}: {reason}"
    return f"images: none of {len(skipped)} can be read: {reasons_text(skipped)}"
