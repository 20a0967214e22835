"""Data sets by name, and image files. Heavy packages are imported on use."""

from naign_ext.data.dataset import HASH_OF_CONTENT, Dataset, DataUnavailableError, data_identity, is_same_data
from naign_ext.data.download import Downloaded
from naign_ext.data.images import (
    image_grid,
    read_image,
    read_image_folder,
    save_image_grid,
    save_images,
)
from naign_ext.data.registry import (
    DATASETS,
    OWN_PRESET,
    DatasetInfo,
    dataset,
    dataset_names,
    default_data_root,
    describe_datasets,
    download_dataset,
    find_dataset,
    load_dataset,
    with_path,
)

# Each enters its data sets in DATASETS, in the order in which they are listed.
# isort: off
from naign_ext.data import toys, digits, mnist, lfw, photos, ffhq, folders  # noqa: F401
# isort: on

# The verb of `naign data get`.
download = download_dataset

__all__ = [
    "DATASETS",
    "HASH_OF_CONTENT",
    "OWN_PRESET",
    "DataUnavailableError",
    "Dataset",
    "DatasetInfo",
    "Downloaded",
    "data_identity",
    "dataset",
    "dataset_names",
    "default_data_root",
    "describe_datasets",
    "download",
    "download_dataset",
    "find_dataset",
    "image_grid",
    "is_same_data",
    "load_dataset",
    "read_image",
    "read_image_folder",
    "save_image_grid",
    "save_images",
    "with_path",
]
