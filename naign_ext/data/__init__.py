"""Data sets by name, corruptions, augmentation and image files. Heavy packages are imported on use."""

from naign_ext.data.augment import expand_with_flips, expand_with_shifts, random_augment
from naign_ext.data.corruptions import KINDS, corrupt, default_strength, degrade, keep_known
from naign_ext.data.dataset import Dataset, DataUnavailableError
from naign_ext.data.download import Downloaded
from naign_ext.data.images import (
    image_grid,
    read_image,
    read_image_folder,
    save_image_grid,
    save_images,
)
from naign_ext.data.registry import (
    DatasetInfo,
    dataset_names,
    default_data_root,
    describe_datasets,
    download_dataset,
    load_dataset,
)

# The verb of `naign data get`.
download = download_dataset

__all__ = [
    "KINDS",
    "DataUnavailableError",
    "Dataset",
    "DatasetInfo",
    "Downloaded",
    "corrupt",
    "dataset_names",
    "default_data_root",
    "default_strength",
    "degrade",
    "describe_datasets",
    "download",
    "download_dataset",
    "expand_with_flips",
    "expand_with_shifts",
    "image_grid",
    "keep_known",
    "load_dataset",
    "random_augment",
    "read_image",
    "read_image_folder",
    "save_image_grid",
    "save_images",
]
