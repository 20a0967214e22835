"""Data sets by name: the one table behind loading, listing, downloading and presets."""

import inspect
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from naign_ext.data.dataset import Dataset, Kind
from naign_ext.data.download import Downloaded
from naign_ext.data.presets import FITTING, Presets, fitting
from naign_ext.data.resize import check_image_size
from naign_ext.registry import Registry

OWN_PRESET = "its own"
_PATH = ":PATH"
"""How the name of a data set ends that is read from a path: ``folder:PATH`` is asked for as ``folder:some/where``."""

Load = Callable[..., Dataset]
Download = Callable[..., Downloaded]


@dataclass(frozen=True)
class DatasetInfo:
    """One line of `naign data list`. Sizes are those of the defaults; 0 where they depend on the data.

    preset: "its own", or what data the preset is made for that stands in for it, such as "photos".
    """

    name: str
    kind: Kind
    sample_shape: tuple[int, ...]
    train: int
    heldout: int
    source: str
    ood: str
    licence: str | None
    download: bool
    preset: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "sample_shape": list(self.sample_shape)}


@dataclass(frozen=True)
class Entry:
    """A registered data set. presets: "default", complete, and what others change in it, as in data/presets.py."""

    info: DatasetInfo
    load: Load
    presets: Presets
    download: Download | None


DATASETS: Registry[Entry] = Registry("dataset")


def dataset(
    name: str,
    *,
    kind: Kind,
    sample_shape: tuple[int, ...],
    rows: tuple[int, int] = (0, 0),
    source: str,
    ood: str = "",
    licence: str | None = None,
    presets: Presets | None = None,
    download: Download | None = None,
) -> Callable[[Load], Load]:
    """A decorator that enters a function as the loader of a data set.

    The loader takes by keyword those of ``seed``, ``heldout_fraction``, ``image_size``, ``channels``, ``data_root``
    and ``path`` that mean something to it; the others are refused where a user gives them.

    Args:
        name: as users write it; one that ends in ``:PATH`` stands for all names with a path in its place.
        sample_shape: (D,) or (C, H, W), of the defaults. rows: training and held-out ones; 0 where that depends.
        source, ood: in words, where the data come from and what the out-of-distribution points are.
        presets: nested values, as in data/presets.py. Without "default" those that fit kind and shape stand in.
        download: ``download(folder, say=..., ...)`` fetches what the loader reads.
    """

    def enter(load: Load) -> Load:
        own, fit = dict(presets or {}), fitting(kind, sample_shape)
        has_own = "default" in own
        info = DatasetInfo(
            name=name,
            kind=kind,
            sample_shape=sample_shape,
            train=rows[0],
            heldout=rows[1],
            source=source,
            ood=ood,
            licence=licence,
            download=download is not None,
            preset=OWN_PRESET if has_own else fit,
        )
        DATASETS.register(name)(Entry(info, load, own if has_own else {**FITTING[fit], **own}, download))
        return load

    return enter


def find_dataset(name: str) -> tuple[Entry, Path | None]:
    """The entry that a name stands for, and the path in it; ValueError, with the names there are, if none."""
    stem, _, path = name.partition(":")
    if ":" not in name or stem + _PATH not in DATASETS:
        if name not in DATASETS and name.strip() and Path(name).expanduser().exists():
            raise ValueError(f"dataset: {name!r} is a path; did you mean folder:{name}?")
        return DATASETS.find(name), None
    if not path.strip():
        raise ValueError(
            f"dataset: expected a path after {stem}:, got {name!r}; {stem}:. is the working directory"
        )
    return DATASETS[stem + _PATH], Path(path).expanduser()


def with_path(name: str, path: str | os.PathLike[str]) -> str | None:
    """The name with this path, absolute, in the place of its own; None where the name holds no path."""
    if find_dataset(name)[1] is None:
        return None
    return f"{name.partition(':')[0]}:{Path(path).expanduser().absolute()}"


def default_data_root() -> Path:
    """Where downloads go and are looked for: $NAIGN_DATA, else ~/.cache/naign."""
    return Path(os.environ.get("NAIGN_DATA") or Path.home() / ".cache" / "naign").expanduser()


def describe_datasets() -> list[DatasetInfo]:
    """Every data set in the order of registration."""
    return [entry.info for entry in DATASETS.values()]


def dataset_names() -> list[str]:
    """The names `load_dataset` takes, without the open-ended ``folder:PATH``."""
    return [name for name in DATASETS if not name.endswith(_PATH)]


def load_dataset(
    name: str,
    *,
    data_root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    image_size: int | None = None,
    heldout_fraction: float | None = None,
    channels: int | None = None,
) -> Dataset:
    """Load a data set by name; the same arguments always give the same tensors.

    Args:
        name: one of `dataset_names`, or ``folder:PATH`` for a folder, zip or tar of images.
        data_root: for mnist the download folder; for ffhq100 the folder, zip or tar with the images; other
            sets need none. Default: `default_data_root`.
        seed: of the split, of toys' draws and of the rearranged out-of-distribution images.
        image_size: side in pixels to which images are resized; None keeps the native size, 64 for ffhq100 and
            folders. Vectors have none.
        heldout_fraction: of the rows, kept for validation and test, 0 <= fraction < 1; None is each set's own
            default.
        channels: 1 or 3, for ffhq100 and folders; None is 3 unless every image is grey.

    Raises:
        ValueError: an unknown name or an argument that does not apply.
        DataUnavailableError (a ValueError): the data are missing or unusable; the text says what to do.
    """
    entry, path = find_dataset(name)
    if image_size is not None:
        check_image_size(image_size)
    choices = {"image_size": image_size, "heldout_fraction": heldout_fraction, "channels": channels}
    root = None if data_root is None else Path(data_root).expanduser()
    everywhere = {"seed": seed, "data_root": root, "path": path}
    taken = inspect.signature(entry.load).parameters
    return entry.load(
        **{key: value for key, value in everywhere.items() if key in taken},
        **_applicable(name, entry.load, choices),
    )


def download_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    file_id: str | None = None,
    sha256: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Downloaded:
    """Fetch and verify a data set that does not ship with a package (`naign data get NAME`).

    Args:
        name: "ffhq100" or "mnist".
        root: folder to download into. Default: `default_data_root`.
        url, file_id: another place for ffhq100's archive: an https address, or a Google Drive file id.
        sha256: expected hash (hex) of ffhq100's archive; None records the one found.
        progress: called with a line of text at each stage.

    Raises:
        ValueError: a name that needs no download, or is unknown; a choice that the data set does not have.
        DataUnavailableError: the download failed or is not what it should be; what arrived is kept, so that
            the next call resumes it.
    """
    fetching = {key: entry.download for key, entry in DATASETS.items() if entry.download is not None}
    if name not in fetching:
        if name in DATASETS:
            raise ValueError(f"name: {name!r} needs no download, it is generated or ships with a package")
        raise ValueError(f"name: expected {' or '.join(sorted(fetching))}, got {name!r}")
    folder = Path(root).expanduser() if root is not None else default_data_root()
    choices = _applicable(name, fetching[name], {"url": url, "file_id": file_id, "sha256": sha256})
    return fetching[name](folder, say=progress or (lambda line: None), **choices)


def _applicable(name: str, function: Callable[..., Any], choices: dict[str, Any]) -> dict[str, Any]:
    """Those choices that are not None; ValueError for one that the function does not take."""
    given = {key: value for key, value in choices.items() if value is not None}
    for key, value in given.items():
        if key not in inspect.signature(function).parameters:
            raise ValueError(f"{key}: dataset {name!r} has no such choice; leave it out (got {value})")
    return given
