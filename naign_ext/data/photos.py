"""photos100: crops of the colour photographs that ship inside scikit-image, scikit-learn and matplotlib."""

import torch

from naign_ext.data.dataset import Dataset
from naign_ext.data.image_arrays import image_dataset
from naign_ext.data.image_files import DEFAULT_SIZE, PRESETS
from naign_ext.data.photo_crops import PHOTOS, load_crops
from naign_ext.data.registry import dataset

LICENCE = (
    "photographs as distributed with scikit-image, scikit-learn and matplotlib: public domain or CC0; china and "
    "flower CC BY 2.0 (danielbuechele, vultilion); motorcycle of the Middlebury stereo benchmark 2014"
)


@dataset(
    "photos100",
    kind="image",
    sample_shape=(3, DEFAULT_SIZE, DEFAULT_SIZE),
    rows=(100, 40),
    source="ships with scikit-image, scikit-learn and matplotlib",
    ood="100 crops of medical, astronomical and grey pictures",
    licence=LICENCE,
    presets=PRESETS,
)
def load_photos100(*, seed: int = 0, image_size: int | None = None) -> Dataset:
    """100 crops of 5 colour photographs to train on, 40 of 3 other photographs held out, (3, 64, 64).

    The crops are of 96 pixels of the photograph and of two to four times that. Which is held out does not depend on the
    seed. As ood, 100 crops of pictures of other kinds: retina, stained tissue and galaxies in colour; bricks, grass,
    gravel, coins and print in grey.

    Raises:
        DataUnavailableError: a package is missing, or ships another picture under the name.
    """
    crops = load_crops(image_size or DEFAULT_SIZE)
    images = torch.cat((crops["train"], crops["heldout"], crops["ood"]))
    train, heldout, outside = torch.split(torch.arange(len(images)), [len(part) for part in crops.values()])
    names = {part: ", ".join(p.name for p in PHOTOS if p.part == part) for part in crops}
    return image_dataset(
        "photos100",
        images,
        (train, heldout),
        outside=(outside, f"crops of {names['ood']}"),
        heldout_fraction=len(heldout) / (len(train) + len(heldout)),
        image_size=None,
        seed=seed,
        source=f"training crops of {names['train']}; held-out crops of {names['heldout']}",
        licence=LICENCE,
    )
