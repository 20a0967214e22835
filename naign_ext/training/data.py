"""The data set that a configuration names."""

from naign_ext.config.schema import TrainConfig
from naign_ext.data import Dataset, load_dataset


def load_configured(config: TrainConfig) -> Dataset:
    """The data set of a run, drawn, split and cut down as its configuration says; all held-out rows.

    Take :meth:`Dataset.for_validation` of it for any choice and :meth:`Dataset.for_test` for what is reported.

    Raises:
        DataUnavailableError: the data are not there. ValueError: the configuration does not fit them.
    """
    dataset = load_dataset(
        config.dataset,
        data_root=config.data_root,
        seed=config.data_seed,
        image_size=config.image_size,
        heldout_fraction=config.heldout_fraction,
    )
    if config.train_rows is None:
        return dataset
    return dataset.with_train_rows(config.train_rows, config.data_seed)
