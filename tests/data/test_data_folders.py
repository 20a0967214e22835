"""Images of the user's own: folders, zips and tars, good and bad, and the ffhq100 layouts."""

import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from naign_ext.data import DataUnavailableError, load_dataset
from naign_ext.data.archives import ReadLimits, TarSource, ZipSource, open_source
from naign_ext.data.ffhq import read_ffhq100
from naign_ext.data.folders import load_folder


def png(index, side=12):
    """A face-sized picture that its index decides: a gradient of that grey."""
    ramp = np.linspace(0, 40, side)[None, :] + index * 2
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(ramp, side, 0).astype(np.uint8)).convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hundred():
    return {f"{index:03d}.png": png(index) for index in range(100)}


def write_folder(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def add_member(archive, name, content=b"", **attributes):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in attributes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            add_member(archive, name, content)
    return path


WRITERS = {
    "folder": lambda root, files: write_folder(root / "faces", files),
    "zip": lambda root, files: write_zip(root / "faces.zip", files),
    "tar": lambda root, files: write_tar(root / "faces.tar", files),
    "tar.gz": lambda root, files: write_tar(root / "faces.tar.gz", files, "w:gz"),
    "tar.xz": lambda root, files: write_tar(root / "faces.tar.xz", files, "w:xz"),
}
LAYOUTS = {"flat": "", "nested": "some/where/", "adaimle": "datasets/ffhq/img/"}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ffhq100_reads_every_layout_alike(tmp_path, hundred, writer, layout):
    files = {LAYOUTS[layout] + name: content for name, content in hundred.items()}
    files |= {LAYOUTS[layout] + "readme.txt": b"hello", "__MACOSX/._000.png": b"junk"}
    if layout == "adaimle":
        files |= {f"datasets/{other}/img/000.png": png(50) for other in ("obama", "panda")}
    root = WRITERS[writer](tmp_path, files)
    data = load_dataset("ffhq100", data_root=root, image_size=12)
    assert data.train.shape == (80, 3, 12, 12)
    assert data.heldout.shape == (20, 3, 12, 12)
    assert len(data.ood) == 100
    assert data.parameters["found"] == 100
    assert data.parameters["damaged"] == []
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in hundred.items()}
    assert {name.split("/")[-1]: value for name, value in data.parameters["sha256"].items()} == expected
    assert "CC BY-NC-SA 4.0" in data.licence
    assert str(tmp_path) not in json.dumps(data.parameters)
    # The first column of picture i is 2 i: all hundred are there, once each.
    first = torch.cat((data.train, data.heldout))[:, 0, 0, 0]
    assert sorted(((first + 1) * 127.5).round().int().tolist()) == [2 * index for index in range(100)]


def test_the_same_images_split_alike_wherever_they_come_from(tmp_path, hundred):
    one = load_dataset("ffhq100", data_root=WRITERS["folder"](tmp_path, hundred))
    two = load_dataset("ffhq100", data_root=WRITERS["tar.gz"](tmp_path, hundred))
    assert torch.equal(one.train, two.train)
    assert one.sample_shape == (3, 64, 64)
    assert not torch.equal(load_dataset("ffhq100", data_root=tmp_path / "faces", seed=1).train, one.train)


@pytest.mark.parametrize("writer", ["folder", "zip", "tar"])
def test_a_damaged_image_among_a_hundred_is_named_with_the_count(tmp_path, hundred, writer):
    files = hundred | {"042.png": hundred["042.png"][:60]}
    root = WRITERS[writer](tmp_path, files)
    with pytest.raises(DataUnavailableError) as caught:
        load_dataset("ffhq100", data_root=root)
    for fragment in ("99 readable images", "100 are needed", "042.png", "naign data get ffhq100", "lfw100"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize("writer", ["folder", "zip", "tar.gz"])
def test_a_spare_image_takes_the_place_of_a_damaged_one(tmp_path, hundred, writer, caplog):
    files = hundred | {"042.png": b"broken", "100.png": png(100), "101.png": png(101)}
    data = load_dataset("ffhq100", data_root=WRITERS[writer](tmp_path, files), image_size=8)
    assert len(data.train) + len(data.heldout) == 100
    assert data.parameters["damaged"] == ["042.png"]
    assert data.parameters["found"] == 102
    names = set(data.parameters["sha256"])
    assert "100.png" in names
    assert not {"042.png", "101.png"} & names
    assert "1 damaged images skipped: 042.png" in caplog.text
    assert "102 images found, the first 100 readable ones by name are used" in caplog.text


def test_missing_ffhq_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NAIGN_DATA", str(tmp_path / "cache"))
    with pytest.raises(DataUnavailableError) as caught:
        load_dataset("ffhq100")
    for fragment in ("naign data get ffhq100", "--data-root", "--dataset lfw100", "no --data-root was given"):
        assert fragment in str(caught.value)
    with pytest.raises(DataUnavailableError, match="nowhere does not exist"):
        load_dataset("ffhq100", data_root=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataUnavailableError, match="0 readable images"):
        load_dataset("ffhq100", data_root=tmp_path / "empty")


def test_a_downloaded_archive_is_found_without_a_data_root(tmp_path, hundred, monkeypatch):
    monkeypatch.setenv("NAIGN_DATA", str(tmp_path))
    (tmp_path / "ffhq100").mkdir()
    write_tar(tmp_path / "ffhq100" / "datasets.tar", {f"ffhq/img/{k}": v for k, v in hundred.items()})
    assert len(load_dataset("ffhq100", image_size=8).train) == 80
    # The folder that the download was told to use serves as the data root as well.
    assert len(load_dataset("ffhq100", data_root=tmp_path, image_size=8).train) == 80


def test_any_folder_of_images_is_resized_cropped_and_split(tmp_path):
    numbers = np.random.default_rng(0)
    for index in range(10):
        shape = (int(numbers.integers(20, 50)), int(numbers.integers(20, 50)), 3)
        picture = numbers.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{index}.{'png' if index % 2 else 'jpg'}")
    data = load_dataset(f"folder:{tmp_path}", image_size=16, heldout_fraction=0.3)
    assert data.name == f"folder:{tmp_path.name}"
    assert data.train.shape == (7, 3, 16, 16)
    assert data.heldout.shape == (3, 3, 16, 16)
    assert data.train.min() >= -1
    assert data.train.max() <= 1
    assert data.parameters["image_size"] == 16
    assert len(data.parameters["sha256"]) == 10
    assert load_dataset(f"folder:{tmp_path}").sample_shape == (3, 64, 64)
    assert load_dataset(f"folder:{tmp_path}", channels=1).sample_shape == (1, 64, 64)


def test_a_folder_of_grey_images_has_one_channel(tmp_path):
    for index in range(4):
        Image.fromarray(np.full((9, 9), index * 60, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    assert load_dataset(f"folder:{tmp_path}", image_size=8).sample_shape == (1, 8, 8)


def test_a_folder_without_images_is_refused(tmp_path):
    write_folder(tmp_path, {"notes.txt": b"x", "broken.png": b"y"})
    with pytest.raises(DataUnavailableError, match=r"0 readable images among 2 files.*broken\.png"):
        load_dataset(f"folder:{tmp_path}")


def test_linked_folders_are_entered_once(tmp_path):
    write_folder(tmp_path / "elsewhere", {f"{i}.png": png(i) for i in range(3)})
    write_folder(tmp_path / "faces", {f"{i}.png": png(i) for i in range(2)} | {"z/own.png": png(9)})
    for name, target in (
        ("a", tmp_path / "faces" / "z"),
        ("link", tmp_path / "elsewhere"),
        ("link2", tmp_path / "elsewhere"),
        ("loop", tmp_path / "faces"),
        ("elsewhere/back", tmp_path),
    ):
        parent = tmp_path if "/" in name else tmp_path / "faces"
        (parent / name).symlink_to(target, target_is_directory=True)
    source = open_source(tmp_path / "faces")
    # A folder that is there under its own name keeps it, whichever links lead to it.
    assert source.names == ["0.png", "1.png", *(f"link/{i}.png" for i in range(3)), "z/own.png"]
    assert source.left_out == []


def test_what_may_hold_images_and_is_not_read_is_counted(tmp_path, caplog):
    files = {f"{i}.png": png(i) for i in range(3)} | {
        "b.HEIC": b"?",
        "c.heic": b"?",
        "notes.txt": b"",
        ".d.svg": b"",
    }
    write_folder(tmp_path, files)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert data.parameters["files"] == 3
    assert data.parameters["left_out"] == {
        ".heic, a format that is not read": 2,
        "a link that leads nowhere": 1,
        "not a regular file": 1,
    }
    assert "4 files left out: b.HEIC (.heic, a format that is not read), c.heic" in caplog.text
    assert "pipe.png (not a regular file)" in caplog.text


def test_links_in_archives_and_folders_that_cannot_be_listed_are_counted(tmp_path, caplog, monkeypatch):
    path = tmp_path / "faces.tar"
    with tarfile.open(path, "w") as archive:
        for index in range(3):
            add_member(archive, f"{index}.png", png(index))
        add_member(archive, "soft.png", type=tarfile.SYMTYPE, linkname="0.png")
        add_member(archive, "folder", type=tarfile.DIRTYPE)
    assert load_dataset(f"folder:{path}").parameters["left_out"] == {"a link in an archive": 1}
    assert "1 files left out: soft.png" in caplog.text
    write_folder(tmp_path / "own", {"0.png": png(0), "shut/1.png": png(1)})
    scan = os.scandir

    def closed(folder):
        if str(folder).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataUnavailableError, match=r"1 readable .* left out: shut .*Permission denied"):
        load_dataset(f"folder:{tmp_path / 'own'}")


def test_a_data_set_without_losses_has_no_word_of_them(tmp_path, caplog):
    write_folder(tmp_path, {f"{i}.png": png(i) for i in range(3)})
    assert "left_out" not in load_dataset(f"folder:{tmp_path}").parameters
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("suffix", "kind"), [("jfif", "JPEG"), ("jpe", "JPEG"), ("JFIF", "JPEG"), ("avif", "AVIF")]
)
def test_images_of_rarer_suffixes_are_read(tmp_path, suffix, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    for index in range(3):
        Image.new("RGB", (9, 9), (80 * index, 40, 200)).save(tmp_path / f"{index}.{suffix}", kind)
    data = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert data.parameters["files"] == 3
    reds = (torch.cat((data.train, data.heldout))[:, 0].mean((1, 2)) + 1) * 127.5
    assert sorted(reds.tolist()) == pytest.approx([0, 80, 160], abs=4)


def test_one_file_too_large_or_shut_is_skipped_with_its_name(tmp_path, caplog, monkeypatch):
    write_folder(tmp_path, {f"{i}.png": png(i) for i in range(4)} | {"scan.tif": bytes(5000)})
    opened = Path.open

    def shut(path, *arguments, **options):
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", shut)
    data = load_folder(tmp_path, limits=ReadLimits(file_bytes=4000))
    assert data.parameters["files"] == 3
    assert data.parameters["damaged"] == ["3.png", "scan.tif"]
    assert "scan.tif (has 5000 bytes, more than the 4000 a file may have)" in caplog.text
    assert "3.png (cannot be opened: Permission denied)" in caplog.text
    assert "unpack it" not in caplog.text


def test_names_that_are_not_utf8_are_used(tmp_path):
    folder = tmp_path / os.fsdecode(b"d\xfcr")
    folder.mkdir()
    for index, name in enumerate((b"caf\xe9.png", b"plain.png", b"\xff.png", b"bad\xe8.png")):
        (folder / os.fsdecode(name)).write_bytes(png(index) if name[:3] != b"bad" else b"?")
    data = load_folder(folder)
    assert sorted(data.parameters["sha256"]) == ["\\udcff.png", "caf\\udce9.png", "plain.png"]
    assert data.parameters["damaged"] == ["bad\\udce8.png"]
    assert data.name == "folder:d\\udcfcr"
    json.dumps([data.name, data.parameters], ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\x.png"]
)
@pytest.mark.parametrize("writer", ["zip", "tar", "tar.gz"])
def test_an_entry_outside_the_archive_is_refused(tmp_path, name, writer):
    root = WRITERS[writer](tmp_path, {"good.png": png(0), name: png(1)})
    with pytest.raises(DataUnavailableError, match="points outside the archive"):
        load_dataset(f"folder:{root}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [root.name]


def test_links_and_devices_in_a_tar_are_never_read(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(9))
    path = tmp_path / "faces.tar"
    with tarfile.open(path, "w") as archive:
        add_member(archive, "a.png", png(0))
        add_member(archive, "b.png", png(1))
        add_member(archive, "soft.png", type=tarfile.SYMTYPE, linkname=str(secret))
        add_member(archive, "hard.png", type=tarfile.LNKTYPE, linkname="a.png")
        add_member(archive, "pipe.png", type=tarfile.FIFOTYPE)
        add_member(archive, "device.png", type=tarfile.CHRTYPE)
    assert open_source(path).names == ["a.png", "b.png"]


def test_links_in_a_zip_are_never_read(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {"a.png": png(0), "b.png": png(1)})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert open_source(path).names == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("limits", "fragment"),
    [
        (ReadLimits(entries=5), "more than 5 entries"),
        (ReadLimits(total_bytes=500), "unpacks to more than 500 bytes"),
        (ReadLimits(file_bytes=50), "more than the 50 a file may have"),
    ],
)
@pytest.mark.parametrize("writer", ["zip", "tar", "tar.gz"])
def test_limits_hold(tmp_path, limits, fragment, writer):
    root = WRITERS[writer](tmp_path, {f"{i}.png": png(i) for i in range(10)})
    # A tar's headers are read through the same bound, so that its smallest limit already meets those.
    accepted = fragment if writer == "zip" or limits.file_bytes > 512 else "announces"
    with pytest.raises(DataUnavailableError, match=accepted):
        load_folder(root, limits=limits)


def test_a_folder_with_too_many_or_too_large_files_is_refused(tmp_path):
    write_folder(tmp_path, {f"{i}.png": png(i) for i in range(10)})
    with pytest.raises(DataUnavailableError, match="more than 5 files"):
        load_folder(tmp_path, limits=ReadLimits(entries=5))
    with pytest.raises(DataUnavailableError, match="more than the 50 a file may have"):
        load_folder(tmp_path, limits=ReadLimits(file_bytes=50))


@pytest.mark.parametrize("writer", ["zip", "tar.gz"])
def test_a_bomb_is_refused_without_unpacking_it(tmp_path, writer):
    zeros = bytes(200 << 20)
    root = WRITERS[writer](tmp_path, {"a.png": png(0), "bomb.png": zeros, "c.png": png(1)})
    assert root.stat().st_size < 1 << 20
    with pytest.raises(DataUnavailableError, match="more than the 67108864 a file may have"):
        load_folder(root)
    with pytest.raises(DataUnavailableError, match="unpacks to more than 104857600 bytes"):
        load_folder(root, limits=ReadLimits(total_bytes=100 << 20))


def test_a_tar_header_cannot_announce_gigabytes(tmp_path):
    path = tmp_path / "faces.tar"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DataUnavailableError, match="announces"):
        open_source(path)


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {"a.png": png(0), "b.png": png(1)})
    content = path.read_bytes()
    size = len(png(1))
    lied = content.replace(size.to_bytes(4, "little"), (size + 1000).to_bytes(4, "little"))
    assert lied != content
    path.write_bytes(lied)
    with pytest.raises(DataUnavailableError, match="cannot be read"):
        load_folder(path)


def test_what_is_no_archive_says_so(tmp_path):
    (tmp_path / "picture.png").write_bytes(png(0))
    (tmp_path / "empty.tar").write_bytes(b"")
    for name in ("picture.png", "empty.tar"):
        with pytest.raises(DataUnavailableError, match=r"cannot be read .* no zip or tar"):
            load_dataset(f"folder:{tmp_path / name}")


@pytest.mark.parametrize("writer", ["zip", "tar", "tar.gz"])
def test_damaged_archives_never_end_in_another_error(tmp_path, writer):
    root = WRITERS[writer](tmp_path, {f"{i}.png": png(i) for i in range(4)})
    content = root.read_bytes()
    numbers = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for trial in range(120):
        damaged = bytearray(content)
        for position in numbers.integers(0, len(content), 4):
            damaged[position] = numbers.integers(256)
        cut = len(content) if trial % 3 else int(numbers.integers(len(content)))
        root.write_bytes(bytes(damaged[:cut]))
        try:
            load_folder(root, image_size=8, limits=ReadLimits(total_bytes=1 << 24, file_bytes=1 << 20))
            outcomes["read"] += 1
        except DataUnavailableError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 10


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {"a.png": png(0), "b.png": png(1)})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = content.find(signature)
        while position >= 0:
            content[position + offset] |= 1
            position = content.find(signature, position + 1)
    path.write_bytes(bytes(content))
    with pytest.raises(DataUnavailableError, match="encrypted"):
        load_folder(path)


def test_reading_a_subset_gives_exactly_those_names(tmp_path, hundred):
    for source in (
        ZipSource(write_zip(tmp_path / "a.zip", hundred)),
        TarSource(write_tar(tmp_path / "a.tar.gz", hundred, "w:gz")),
    ):
        wanted = ["077.png", "003.png"]
        assert dict(source.read(wanted)) == {name: hundred[name] for name in wanted}


def test_only_the_ffhq_folder_of_a_shared_archive_counts(tmp_path, hundred):
    files = {f"datasets/obama/img/{name}": content for name, content in hundred.items()}
    files |= {f"datasets/ffhq/img/{name}": content for name, content in list(hundred.items())[:99]}
    with pytest.raises(DataUnavailableError, match="99 readable images"):
        read_ffhq100(write_tar(tmp_path / "datasets.tar", files))


def test_a_path_is_told_from_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos.zip").write_bytes(b"")
    for name in ("photos", "./photos", "photos/", "photos.zip", str(tmp_path / "photos")):
        with pytest.raises(
            ValueError, match=rf"dataset: '{re.escape(name)}' is a path; did you mean folder:"
        ):
            load_dataset(name)
    for name in ("folder:", "folder: "):
        with pytest.raises(ValueError, match="dataset: expected a path after folder:"):
            load_dataset(name)
    # A folder of a data set's name changes nothing.
    (tmp_path / "moons").mkdir()
    assert load_dataset("moons").name == "moons"
