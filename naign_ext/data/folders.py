"""Image sets from the user's own files: ``folder:PATH``."""

from pathlib import Path

from naign_ext.data import ood
from naign_ext.data.archives import DEFAULT_LIMITS, ReadLimits, open_source
from naign_ext.data.dataset import Dataset, DataUnavailableError
from naign_ext.data.image_files import DEFAULT_SIZE, PRESETS, images_dataset
from naign_ext.data.images import check_channels, is_image_name, load_images
from naign_ext.data.registry import dataset
from naign_ext.data.skipped import printable, reasons_text, warn_of_skipped


@dataset(
    "folder:PATH",
    kind="image",
    sample_shape=(3, DEFAULT_SIZE, DEFAULT_SIZE),
    source="a folder, zip or tar of images",
    ood=ood.SUMMARY,
    presets=PRESETS,
)
def load_folder(
    path: Path,
    *,
    seed: int = 0,
    image_size: int | None = None,
    heldout_fraction: float | None = None,
    channels: int | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Dataset:
    """All images below a folder, or in a zip or tar, resized and centre-cropped to a square (64 pixels).

    Damaged and too large files are skipped and named in a warning and in ``parameters["damaged"]``; what may hold
    images and is not read (other formats, links in archives, pipes) is counted in a warning and, by reason, in
    ``parameters["left_out"]``.

    Raises:
        DataUnavailableError: fewer than 2 readable images, or the path or archive is unusable.
    """
    check_channels(channels)
    source = open_source(path, limits)
    names = [name for name in source.names if is_image_name(name)]
    loaded = load_images(source, names, image_size=image_size or DEFAULT_SIZE, channels=channels)
    if len(loaded.names) < 2:
        damage = f"; damaged: {reasons_text(loaded.damaged)}" if loaded.damaged else ""
        damage += f"; left out: {reasons_text(loaded.left_out)}" if loaded.left_out else ""
        raise DataUnavailableError(
            f"{source.label}: {len(loaded.names)} readable images among {len(source.names)} files, at least "
            f"2 are needed{damage}. Pass folder:PATH with a folder, zip or tar of PNG, JPEG or WebP images"
        )
    warn_of_skipped(source.label, loaded.damaged, loaded.left_out)
    return images_dataset(
        f"folder:{path.name}",
        loaded,
        seed=seed,
        heldout_fraction=heldout_fraction,
        licence=None,
        parameters={"source": printable(source.label)},
    )
