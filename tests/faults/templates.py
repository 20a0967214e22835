"""Whole files of every kind that naign reads, made once; tries damage copies of them."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import torch

SMALL = (
    "steps=12",
    "batch_size=8",
    "model.widths=[8, 8]",
    "objective.pool_size=40",
    "log.every=2",
    "log.samples_every=0",
    "log.samples=4",
    "log.checkpoint_every=4",
    "log.tensorboard=false",
    "device=cpu",
)
PICTURES = ("image_size=8", "model.architecture=mlp", *SMALL)
FORMATS = ("png", "jpg", "gif", "webp", "tiff", "bmp", "ppm")
ROOT = Path(__file__).parents[2]
PLANE, IMAGES = "8gaussians", "pictures"


def configuration(dataset: str = PLANE, *more: str):
    """A run of a second or less."""
    from naign_ext.config import resolve_config

    return resolve_config(dataset, settings=[*SMALL, *more])


def make(folder: Path) -> Path:
    """All templates below the folder."""
    from naign_ext.projector import Projector
    from naign_ext.training.trainer import train

    _make_images(folder)
    train(configuration(), folder / "run")
    train(configuration(f"folder:{folder / IMAGES}", *PICTURES), folder / "image-run")
    for name in ("run", "image-run"):
        Projector.load(folder / name, "cpu").save_pretrained(folder / f"{name}-pretrained")
    _make_archives(folder)
    _make_results(folder)
    return folder


def _make_images(folder: Path) -> None:
    from PIL import Image

    target = folder / IMAGES
    target.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        for ending in FORMATS:
            pixels = torch.randint(0, 256, (10 + number, 12, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(target / f"{ending}{number}.{ending}")
    others = folder / "other-images"
    others.mkdir()
    for mode in ("1", "L", "LA", "P", "RGBA", "I", "F", "I;16", "CMYK", "YCbCr"):
        size = (9, 7)
        image = (
            Image.new(mode, size)
            if mode == "I;16"
            else Image.open(target / "png0.png").resize(size).convert(mode)
        )
        image.save(others / f"{mode.replace(';', '_')}.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(target / "jpg0.jpg").save(others / "turned.jpg", exif=exif)
    frames = [Image.open(target / f"png{number}.png").resize((9, 7)) for number in range(3)]
    frames[0].save(others / "moving.gif", save_all=True, append_images=frames[1:])


def _make_archives(folder: Path) -> None:
    target = folder / "archives"
    target.mkdir()
    files = sorted((folder / IMAGES).glob("*[01].*"))
    for name, compression in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(target / name, "w", compression) as archive:
            for file in files:
                archive.write(file, f"a/{file.name}")
    for name, mode in (
        ("plain.tar", "w:"),
        ("zipped.tar.gz", "w:gz"),
        ("b.tar.bz2", "w:bz2"),
        ("x.tar.xz", "w:xz"),
    ):
        with tarfile.open(target / name, mode) as archive:
            for file in files:
                archive.add(file, f"a/{file.name}")


def _make_results(folder: Path) -> None:
    from naign_ext.data.lfw import _find_file
    from naign_ext.evaluation import classifier
    from naign_ext.reproduce import runs

    target = folder / "reproduced"
    target.mkdir()
    for name in ("trimodal.json", "modes2d.json", "restoration.json", "ign-search.json"):
        shutil.copy(ROOT / "docs" / "results" / name, target / name)
    target = folder / "benched"
    target.mkdir()
    for name in ("train-cpu.json", "loss-cpu.json", "pool-cpu.json", "train-processes-cpu.json"):
        shutil.copy(ROOT / "bench" / "results" / name, target / name)
    runs.carry_out(job(), folder / "jobs")
    network = classifier._build_quietly((1, 8, 8), 3)
    classifier._write(folder / "classifier.safetensors", classifier._frozen(network, 3), 0.5)
    shutil.copyfile(_find_file(), folder / "lfw.npy")


def job():
    """A run of a reproduction, judged at every checkpoint."""
    from naign_ext.reproduce.runs import Job

    return Job(configuration(PLANE, "seed=1"), metrics=("projection",), curve=True)
