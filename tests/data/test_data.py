"""Data sets by name: shapes, ranges, splits, determinism, and the errors a user meets."""

import io
import json
import pickle
import struct
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from naign_ext.data import DataUnavailableError, dataset_names, describe_datasets, load_dataset
from naign_ext.data.dataset import split_indices
from naign_ext.data.ood import rearrange_quarters, rearranged
from naign_ext.seeds import data_generator

BUNDLED = {
    "digits": ((1, 8, 8), 1438, 359, 359),
    "mnist5k": ((1, 28, 28), 4000, 1000, 1000),
    "lfw100": ((1, 25, 25), 80, 20, 100),
    "photos100": ((3, 64, 64), 100, 40, 100),
}


def rows_as_bytes(images):
    return {row.numpy().tobytes() for row in images}


@pytest.fixture(scope="module")
def bundled():
    return {name: load_dataset(name) for name in BUNDLED}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_images_have_the_documented_shapes_and_range(bundled, name):
    shape, train, heldout, ood = BUNDLED[name]
    data = bundled[name]
    assert data.kind == "image"
    assert data.sample_shape == shape
    assert (len(data.train), len(data.heldout), len(data.ood)) == (train, heldout, ood)
    for part in (data.train, data.heldout, data.ood):
        assert part.dtype == torch.float32
        assert part.min() >= -1
        assert part.max() <= 1
    assert data.train.min() == -1
    assert data.train.max() == 1
    assert data.licence
    assert json.loads(json.dumps(data.parameters)) == data.parameters
    assert len(data.parameters["sha256"]) == 64


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_splits_are_disjoint_and_complete(bundled, name):
    data = bundled[name]
    train, heldout = rows_as_bytes(data.train), rows_as_bytes(data.heldout)
    assert not train & heldout
    other = load_dataset(name, seed=1)
    assert rows_as_bytes(other.train) | rows_as_bytes(other.heldout) == train | heldout


@pytest.mark.parametrize("name", ["digits", "lfw100"])
def test_the_same_seed_gives_the_same_split_and_another_seed_another(bundled, name):
    again, other = load_dataset(name), load_dataset(name, seed=1)
    assert torch.equal(again.train, bundled[name].train)
    assert torch.equal(again.heldout, bundled[name].heldout)
    assert torch.equal(again.ood, bundled[name].ood)
    assert not torch.equal(other.train, bundled[name].train)


def test_lfw_ood_is_the_non_face_half(bundled):
    other = load_dataset("lfw100", seed=3)
    assert torch.equal(other.ood, bundled["lfw100"].ood)
    faces = torch.cat((bundled["lfw100"].train, bundled["lfw100"].heldout))
    assert not rows_as_bytes(faces) & rows_as_bytes(other.ood)


def test_mnist5k_holds_out_a_hundred_of_each_class(bundled):
    data = bundled["mnist5k"]
    assert torch.bincount(data.train_labels).tolist() == [400] * 10
    assert torch.bincount(data.heldout_labels).tolist() == [100] * 10


def test_labels_belong_to_their_images(bundled):
    data = bundled["digits"]
    means = torch.stack([data.train[data.train_labels == k].mean(0) for k in range(10)])
    nearest = torch.cdist(data.heldout.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == data.heldout_labels).float().mean() > 0.85


def test_heldout_fraction_and_image_size_apply():
    data = load_dataset("lfw100", heldout_fraction=0.5, image_size=16)
    assert data.train.shape == (50, 1, 16, 16)
    assert data.heldout.shape == (50, 1, 16, 16)
    assert data.ood.shape == (100, 1, 16, 16)
    assert data.parameters["image_size"] == 16
    everything = load_dataset("lfw100", heldout_fraction=0)
    assert len(everything.train) == 100
    assert everything.heldout.shape == (0, 1, 25, 25)
    assert load_dataset("digits", heldout_fraction=0).ood is None


def test_names_and_descriptions_agree():
    names = dataset_names()
    assert names[:8] == [
        "trimodal1d", "8gaussians", "grid25", "moons", "rings", "spirals", "checkerboard", "swissroll",
    ]  # fmt: skip
    infos = {info.name: info for info in describe_datasets()}
    assert set(infos) == {*names, "folder:PATH"}
    for name, (shape, train, heldout, _) in BUNDLED.items():
        assert (infos[name].sample_shape, infos[name].train, infos[name].heldout) == (shape, train, heldout)
        assert not infos[name].download
    assert infos["ffhq100"].download
    assert "CC BY-NC-SA" in infos["ffhq100"].licence
    json.dumps([info.as_dict() for info in infos.values()])


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("cifar", {}, "dataset: expected one of trimodal1d"),
        ("moons", {"image_size": 8}, "image_size: dataset 'moons'"),
        ("digits", {"channels": 3}, "channels: dataset 'digits'"),
        ("digits", {"heldout_fraction": 1.0}, "heldout_fraction: expected 0 <= fraction < 1, got 1.0"),
        ("moons", {"heldout_fraction": -0.1}, "heldout_fraction"),
        ("digits", {"image_size": 1}, "image_size: expected 2 to 4096"),
        ("folder:/does/not/exist", {}, "no such folder or archive"),
    ],
)
def test_wrong_arguments_are_named(name, options, fragment):
    with pytest.raises(ValueError) as caught:
        load_dataset(name, **options)
    assert fragment in str(caught.value)


def test_seed_must_be_an_int():
    with pytest.raises(TypeError, match="seed: expected an int"):
        load_dataset("moons", seed=0.5)


def test_streams_differ_by_seed_and_by_name():
    draws = {
        key: torch.rand(4, generator=data_generator(*key)).tolist()[0]
        for key in [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1), (10, "a"), (1, "0", "a")]
    }
    assert len(set(draws.values())) == len(draws)
    assert torch.rand(1, generator=data_generator(0, "a")).item() == draws[(0, "a")]


def test_split_never_takes_a_whole_class():
    labels = torch.tensor([0] * 10 + [1])
    train, heldout = split_indices(11, 0.9, data_generator(0), labels)
    assert 10 in train.tolist()
    assert sorted(train.tolist() + heldout.tolist()) == list(range(11))


@pytest.mark.parametrize("side", [8, 25])
def test_rearranged_quarters_keep_pixels_and_move_every_quarter(side):
    images = torch.rand(3, 2, side, side, generator=data_generator(0))
    result = rearranged(images, seed=0, at_least=25)
    assert result.shape == (27, 2, side, side)
    half = side // 2
    for index, picture in enumerate(result):
        original = images[index // 9]
        assert torch.equal(picture.flatten(1).sort(1).values, original.flatten(1).sort(1).values)
        for rows in (slice(0, half), slice(side - half, side)):
            for columns in (slice(0, half), slice(side - half, side)):
                assert not torch.equal(picture[:, rows, columns], original[:, rows, columns])
    assert len({r.numpy().tobytes() for r in result}) == 27


def test_rearranging_follows_the_order_given():
    image = torch.arange(16.0).reshape(1, 4, 4)
    result = rearrange_quarters(image, (3, 2, 1, 0))
    assert result[0].tolist() == [[10, 11, 8, 9], [14, 15, 12, 13], [2, 3, 0, 1], [6, 7, 4, 5]]


def test_a_dataset_can_be_pickled():
    data = load_dataset("spirals")
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.sample_truth(5, 1), data.sample_truth(5, 1))
    assert torch.equal(copy.support_distance(data.heldout), data.support_distance(data.heldout))


def test_importing_the_data_package_loads_no_heavy_package():
    code = (
        "import sys, naign_ext.data\n"
        "heavy = {'PIL', 'torchvision', 'sklearn', 'skimage', 'mlxtend', 'gdown', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + b"".join(struct.pack(">I", n) for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist_root(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", numbers.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return tmp_path


def test_mnist_keeps_its_own_split(mnist_root):
    data = load_dataset("mnist", data_root=mnist_root)
    assert data.train.shape == (60, 1, 28, 28)
    assert data.heldout.shape == (20, 1, 28, 28)
    assert data.heldout_labels.tolist() == [i % 10 for i in range(20)]
    again = load_dataset("mnist", data_root=mnist_root, seed=5)
    assert torch.equal(again.train, data.train)
    assert not torch.equal(again.ood, data.ood)


def test_mnist_can_be_split_anew(mnist_root):
    data = load_dataset("mnist", data_root=mnist_root, heldout_fraction=0.5, image_size=14)
    assert data.train.shape == (40, 1, 14, 14)
    assert torch.bincount(data.heldout_labels).tolist() == [4] * 10


def test_mnist_without_a_connection_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(DataUnavailableError) as caught:
        load_dataset("mnist", data_root=tmp_path)
    for fragment in ("could not be downloaded", "naign data get mnist", "--data-root", "mnist5k"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", ["lfw100", "digits", "moons"])
def test_heldout_rows_are_split_into_validation_and_test(name):
    data = load_dataset(name)
    validation, test = data.for_validation(), data.for_test()
    assert len(validation.heldout) == pytest.approx(len(data.heldout) / 4, abs=3)
    parts = rows_as_bytes(validation.heldout), rows_as_bytes(test.heldout)
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == rows_as_bytes(data.heldout)
    assert torch.equal(validation.heldout, load_dataset(name).for_validation().heldout)
    assert torch.equal(test.train, data.train)
    if data.heldout_labels is not None:
        shares = torch.bincount(validation.heldout_labels) / torch.bincount(data.heldout_labels)
        assert ((shares - 0.25).abs() < 0.03).all()
        assert len(test.heldout_labels) == len(test.heldout)


def test_few_heldout_rows_are_all_for_test():
    data = load_dataset("lfw100", heldout_fraction=0.01)
    assert (len(data.for_validation().heldout), len(data.for_test().heldout)) == (0, 1)
    none = load_dataset("lfw100", heldout_fraction=0)
    assert len(none.for_validation().heldout) == len(none.for_test().heldout) == 0


def test_fewer_training_rows_are_nested_and_balanced():
    data = load_dataset("digits")
    small, large = data.with_train_rows(40, 3), data.with_train_rows(200, 3)
    assert torch.bincount(small.train_labels).tolist() == [4] * 10
    assert rows_as_bytes(small.train) < rows_as_bytes(large.train) < rows_as_bytes(data.train)
    assert torch.equal(small.heldout, data.heldout)
    assert small.parameters["train_rows"] == 40
    faces = load_dataset("lfw100")
    assert len(faces.with_train_rows(10, 0).train) == 10
    assert not torch.equal(faces.with_train_rows(10, 0).train, faces.with_train_rows(10, 1).train)
    with pytest.raises(ValueError, match=r"train_rows: expected 1 to 80 for lfw100, got 81"):
        faces.with_train_rows(81, 0)


@pytest.mark.parametrize(
    "contents",
    [b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((", "shape", "numbers", "cut"],
    ids=["empty", "header", "shape", "numbers", "cut"],
)
def test_a_damaged_array_of_faces_is_named(tmp_path, monkeypatch, contents):
    whole = io.BytesIO()
    np.save(
        whole, np.full((200, 25, 24 if contents == "shape" else 25), np.nan if contents == "numbers" else 0.5)
    )
    file = tmp_path / "faces.npy"
    file.write_bytes(
        whole.getvalue()[: 500 if contents == "cut" else None] if isinstance(contents, str) else contents
    )
    monkeypatch.setattr("naign_ext.data.lfw._find_file", lambda: file)
    with pytest.raises(DataUnavailableError, match=f"dataset 'lfw100': {file} is damaged"):
        load_dataset("lfw100")
