"""naign sample, restore, score, evaluate, bench: on tiny runs, against the library's own answers."""

import html
import io
import json
import os
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from naign_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from naign_ext import Projector
from naign_ext.config import resolve_config
from naign_ext.data import load_dataset, read_image, save_images
from naign_ext.evaluation import auroc, psnr, ssim
from naign_ext.metrics_log import read_metrics
from naign_ext.training.trainer import train
from naign_ext.transforms import corrupt, degrade

runner = CliRunner()


def naign(*arguments):
    return runner.invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160", "TERM": "dumb"})


def answer(*arguments):
    result = naign(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("digits", "trimodal1d"):
        settings = ["steps=30", "objective.pool_size=64", "log.tensorboard=false"]
        train(resolve_config(name, "quick", settings=settings), folder / name)
    return folder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    save_images(load_dataset("digits").heldout[:3], folder)
    return folder


def test_sample_writes_a_grid_and_separate_images(runs, tmp_path):
    result = naign("sample", runs / "digits", "-n", 5, "--seed", 2, "--out", tmp_path)
    assert result.exit_code == 0
    assert f"{tmp_path}/grid.png" in result.stdout
    images = sorted((tmp_path / "images").iterdir())
    assert [p.name for p in images] == [f"{i:05d}.png" for i in range(5)]
    expected = Projector.load(runs / "digits").sample(5, seed=2).clamp(-1, 1)
    found = torch.stack([read_image(path) for path in images])
    assert (found - expected).abs().max() <= 1 / 127.5
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 3 * 64


def test_sample_applies_f_again(runs, tmp_path):
    found = answer("sample", runs / "trimodal1d", "-n", 4, "--steps", 2, "--out", tmp_path)
    assert found["files"] == [str(tmp_path / "samples.csv")]
    values = np.loadtxt(tmp_path / "samples.csv", delimiter=",")
    expected = Projector.load(runs / "trimodal1d").sample(4, steps=2)[:, 0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_sample_writes_into_the_run_by_default(runs):
    found = answer("sample", runs / "trimodal1d", "-n", 2)
    assert found["files"] == [str(runs / "trimodal1d" / "sampled" / "samples.csv")]


def test_sample_from_a_pretrained_folder_and_from_one_checkpoint(runs, tmp_path):
    projector = Projector.load(runs / "digits", checkpoint="last")
    projector.save_pretrained(tmp_path / "saved")
    one = runs / "digits" / "checkpoints" / "step_00000030"
    for i, source in enumerate((tmp_path / "saved", one)):
        answer("sample", source, "-n", 2, "--out", tmp_path / str(i))
    first, second = (read_image(tmp_path / str(i) / "images" / "00001.png") for i in range(2))
    assert torch.equal(first, second)


def test_restore_measures_held_out_data(runs, tmp_path):
    command = [
        "restore",
        runs / "digits",
        "--corrupt",
        "noise",
        "--strength",
        0.7,
        "--count",
        4,
        "--seed",
        5,
        "--steps",
        1,
    ]
    found = answer(*command, "--out", tmp_path)
    clean = load_dataset("digits").heldout[:4]
    noisy, _ = corrupt(clean, "noise", seed=5, strength=0.7)
    restored = Projector.load(runs / "digits").restore(noisy)
    for key, values in (
        ("psnr_before", psnr(clean, noisy)),
        ("psnr_after", psnr(clean, restored)),
        ("ssim_before", ssim(clean, noisy)),
        ("ssim_after", ssim(clean, restored)),
    ):
        assert [row[key] for row in found["images"]] == pytest.approx(values.tolist())
        assert found["mean"][key] == pytest.approx(values.mean().item())
    assert (tmp_path / "stages.png").is_file()
    assert len(list((tmp_path / "images").iterdir())) == 4
    text = naign(*command, "--out", tmp_path).stdout
    assert "mean of 4" in text
    assert f"{found['mean']['psnr_after']:.3f}" in text


def test_restore_takes_files_and_folders(runs, pictures, tmp_path):
    result = naign("restore", runs / "digits", pictures, pictures / "00001.png", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "PSNR" not in result.stdout
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4
    found = answer("restore", runs / "digits", pictures / "00001.png", "--out", tmp_path / "one")
    assert [row["name"] for row in found["images"]] == ["00001.png"]
    expected = Projector.load(runs / "digits").restore(read_image(pictures / "00001.png"))
    written = read_image(tmp_path / "one" / "images" / "00001.png")
    assert (written - expected).abs().max() <= 1 / 127.5


def picture(path, seed, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    # As PNG whatever the suffix: what is read back is what was written.
    Image.fromarray(pixels).save(path, "PNG")


@pytest.mark.parametrize(
    "names",
    [
        {f"{i:05d}.png": f"{i:05d}" for i in range(1, 6)},
        {"00003.png": "00003", "00000.png": "00000", "stages.png": "stages"},
        {"owl.png": "owl.png", "owl.jpg": "owl.jpg", "hen.png": "hen"},
        {"sea/bay.png": "sea__bay.png", "sea_bay.png": "sea_bay.png"},
        {"boat[red].png": "boat[red]", ":cat:.png": ":cat:", "k[/l].png": "k[_l]"},
        {"caf\udce9.png": "caf\udce9"},
    ],
    ids=["numbers", "numbers and stages", "one stem", "folders", "markup", "no UTF-8"],
)
def test_every_result_has_the_name_of_its_image(runs, tmp_path, names):
    for seed, name in enumerate(names):
        picture(tmp_path / "in" / name, seed)
    result = naign("restore", runs / "digits", tmp_path / "in", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    projector = Projector.load(runs / "digits")
    found = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert found == {f"{stem}.png" for stem in names.values()}
    for name, stem in names.items():
        expected = projector.restore(read_image(tmp_path / "in" / name))
        written = read_image(tmp_path / "out" / "images" / f"{stem}.png")
        assert (written - expected).abs().max() <= 1 / 127.5


def test_images_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    for seed, folder in enumerate(("north", "south")):
        picture(tmp_path / folder / "gull.png", seed)
    command = [runs / "digits", tmp_path / "north", tmp_path / "south" / "gull.png"]
    assert [row["name"] for row in answer("score", *command)["scores"]] == [
        "north/gull.png",
        "south/gull.png",
    ]
    answer("restore", *command, "--out", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out" / "images").iterdir()} == {"north_gull.png", "south_gull.png"}


def test_a_second_restore_or_sample_leaves_only_its_own(runs, pictures, tmp_path):
    answer("restore", runs / "digits", pictures, "--out", tmp_path)
    (tmp_path / "images" / "notes.txt").write_text("mine")
    answer("restore", runs / "digits", pictures / "00001.png", "--out", tmp_path)
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == ["00001.png", "notes.txt"]
    result = naign("restore", runs / "digits", tmp_path / "images" / "00001.png", "--out", tmp_path)
    assert result.exit_code == 2
    assert "give another --out" in result.stderr
    for count in (5, 2):
        answer("sample", runs / "digits", "-n", count, "--out", tmp_path / "sampled")
        assert len(list((tmp_path / "sampled" / "images").iterdir())) == count
    (tmp_path / "sampled" / "images" / "00004.png").write_bytes(b"mine")
    result = naign("sample", runs / "digits", "-n", 5, "--out", tmp_path / "sampled")
    assert result.exit_code == 2
    assert "no earlier call wrote it" in result.stderr
    assert (tmp_path / "sampled" / "images" / "00004.png").read_bytes() == b"mine"


def test_names_are_tabled_as_they_are(runs, tmp_path):
    names = ["boat[red].png", "boat[final].png", ":smile:.png", "k[/l].png", "[/].png"]
    for seed, name in enumerate(names):
        picture(tmp_path / "in" / name, seed)
    for command in (["score"], ["restore", "--corrupt", "noise", "--out", tmp_path / "out"]):
        result = naign(command[0], runs / "digits", tmp_path / "in", *command[1:])
        assert result.exit_code == 0, result.output
        assert all(name in result.stdout for name in names)
    result = naign("score", runs / "digits", tmp_path / "in", "--reference", tmp_path / "in" / names[0])
    assert f"{names[0]}: " in result.stdout
    result = naign("score", runs / "digits", "[/b]:cat:.png")
    assert result.exit_code == 2
    assert "[/b]:cat:.png: No such file" in result.stderr


def test_markup_in_the_users_names_is_shown_as_it_is_by_every_command(tmp_path, monkeypatch):
    """Of the data set's folder, the run's, the results' and the files'."""
    monkeypatch.chdir(tmp_path)
    data, run, out = "p[red]:cat:", "r[bold]:cat:<b>&", "o[/]:cat:"
    for seed in range(6):
        picture(tmp_path / data / f"[red]{seed}:cat:.png", seed)
    settings = ["steps=2", "image_size=8", "objective.pool_size=16", "log.tensorboard=false"]
    result = naign("train", "--dataset", f"folder:{data}", "--preset", "quick", "--out", run, "--no-report",
                   *(part for setting in settings for part in ("--set", setting)))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert f"{run}/checkpoints" in result.output
    for command, shown in (
        (["sample", run, "-n", 2, "--out", out], [f"{out}/grid.png"]),
        (["score", run, data], [f"[red]{seed}:cat:.png" for seed in range(6)]),
        (["score", run, data, "--reference", data], [f"AUROC against {data}: "]),
        (["restore", run, data, "--out", f"{out}2"], [f"{out}2/stages.png"]),
        (
            ["restore", run, data, "--corrupt", "noise", "--out", f"{out}3"],
            [f"[red]{seed}:cat:.png" for seed in range(6)],
        ),
        (["evaluate", run, "--samples", 20, "--features", "pixels"], [f"{run}/report/report.html"]),
    ):
        result = naign(*command)
        assert result.exit_code == 0, result.output
        assert [text for text in shown if text not in result.stdout] == []
    for command in (
        ["sample", "no[red]:cat:"],
        ["score", run, "no[red]:cat:.png"],
        ["train", "--resume", "no[red]:cat:"],
    ):
        result = naign(*command)
        assert result.exit_code == 2
        assert "no[red]:cat:" in result.stderr
    page = (tmp_path / run / "report" / "report.html").read_text()
    assert html.escape(data) in page
    assert "<b>&" not in page


def test_what_is_no_regular_file_is_a_mistake(runs, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        for command in ("score", "restore"):
            result = naign(command, runs / "digits", path)
            assert result.exit_code == 2
            assert "not a regular file" in result.stderr


def test_restore_brings_photographs_to_size(runs, tmp_path):
    Image.new("RGB", (50, 31), (200, 10, 60)).save(tmp_path / "photo.jpg")
    result = naign("restore", runs / "digits", tmp_path / "photo.jpg", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert read_image(tmp_path / "out" / "images" / "photo.png").shape == (1, 8, 8)


def test_restore_can_keep_known_pixels(runs, pictures, tmp_path):
    command = ["restore", runs / "digits", pictures, "--corrupt", "mask"]
    free = answer(*command, "--out", tmp_path / "free")
    kept = answer(*command, "--keep-known", "--out", tmp_path / "kept")
    assert kept["mean"]["psnr_after"] > free["mean"]["psnr_after"]
    assert kept["mean"]["psnr_before"] == free["mean"]["psnr_before"]


@pytest.mark.parametrize("kind", ["blur", "downsample"])
def test_restore_puts_back_what_a_known_corruption_left(runs, pictures, tmp_path, kind):
    projector = Projector.load(runs / "digits")
    found = answer(
        "restore",
        runs / "digits",
        "--corrupt",
        kind,
        "--keep-known",
        "--count",
        3,
        "--steps",
        1,
        "--out",
        tmp_path,
    )
    clean = load_dataset("digits").heldout[:3]
    x = degrade(clean, kind)
    y = projector.project(x)
    expected = (y + x - degrade(y, kind)).clamp(-1, 1)
    assert [row["psnr_after"] for row in found["images"]] == pytest.approx(psnr(clean, expected).tolist())
    command = ["restore", runs / "digits", pictures / "00001.png", "--corrupted-by", kind, "--strength", 2]
    answer(*command, "--steps", 2, "--out", tmp_path / "given")
    spoilt = read_image(pictures / "00001.png")
    expected = projector.restore(spoilt, 2, degrade=partial(degrade, kind=kind, strength=2))
    written = read_image(tmp_path / "given" / "images" / "00001.png")
    assert (written - expected).abs().max() <= 1 / 127.5


@pytest.mark.parametrize("kind", ["noise", "mask", "blur"])
def test_restore_takes_the_way_that_is_best_on_validation_images(runs, tmp_path, kind):
    projector, dataset = Projector.load(runs / "digits"), load_dataset("digits").for_test()
    keep = [] if kind == "noise" else ["--keep-known"]
    command = ["restore", runs / "digits", "--corrupt", kind, *keep, "--count", 5, "--out", tmp_path]
    found = answer(*command)
    choice = projector.choose_recipe(dataset.validation[:50], kind, seed=1)
    assert found["way"] == {
        **asdict(choice.recipe),
        "gain": choice.gain,
        "gain_of_one_pass": choice.gain_of_one_pass,
        "images": 50,
    }
    spoilt, lost = corrupt(dataset.heldout[:5], kind, seed=0)
    degraded = partial(degrade, kind=kind) if kind == "blur" else None
    restored = projector.restore(spoilt, lost=lost, degrade=degraded, recipe=choice.recipe)
    expected = psnr(dataset.heldout[:5], restored)
    assert [row["psnr_after"] for row in found["images"]] == pytest.approx(expected.tolist(), rel=1e-5)
    assert "way: " in naign(*command).stdout
    assert answer(*command, "--steps", 1)["way"] is None


def test_restore_says_that_f_cannot_help_where_it_cannot(runs, pictures, tmp_path):
    command = ["restore", runs / "digits", "--corrupt", "blur", "--strength", 0.3, "--count", 3]
    result = naign(*command, "--out", tmp_path / "heldout")
    assert "left as they are, since on 50 validation images f makes blur no better" in result.stdout
    given = naign("restore", runs / "digits", pictures, "--out", tmp_path / "given")
    assert "f, applied once; --corrupted-by KIND finds a better one" in given.stdout
    noisy = naign(
        "restore", runs / "digits", pictures, "--corrupted-by", "noise", "--out", tmp_path / "given"
    )
    assert "on 50 validation images" in noisy.stdout


def test_restore_without_the_runs_data_applies_f_once(runs, pictures, tmp_path):
    Projector.load(runs / "digits").save_pretrained(tmp_path / "saved")
    command = ["restore", tmp_path / "saved", pictures, "--corrupted-by", "noise", "--out", tmp_path / "out"]
    assert "way: f, applied once" in naign(*command).stdout


def test_restore_vectors(runs, tmp_path):
    found = answer("restore", runs / "trimodal1d", "--corrupt", "noise", "--count", 6, "--out", tmp_path)
    assert set(found["mean"]) == {"error_before", "error_after"}
    table = np.loadtxt(tmp_path / "restored.csv", delimiter=",")
    assert table.shape == (6, 3)
    errors = (table[:, 2] - table[:, 0]) ** 2
    assert [row["error_after"] for row in found["images"]] == pytest.approx(errors.tolist(), rel=1e-4)


def test_score_images_against_a_reference(runs, pictures):
    projector = Projector.load(runs / "digits")
    dataset = load_dataset("digits")
    found = answer("score", runs / "digits", pictures, "--reference", "heldout")
    images = torch.stack([read_image(path) for path in sorted(pictures.iterdir())])
    expected = projector.score(images)
    assert [row["residual"] for row in found["scores"]] == pytest.approx(expected.residual.tolist())
    assert [row["energy"] for row in found["scores"]] == pytest.approx(expected.energy.tolist())
    known = projector.score(dataset.for_test().heldout)
    assert found["auroc"]["residual"] == pytest.approx(auroc(known.residual, expected.residual))
    by_folder = answer("score", runs / "digits", pictures, "--reference", pictures)
    assert by_folder["auroc"]["residual"] == 0.5
    assert answer("score", runs / "digits", pictures)["auroc"] is None


def test_score_without_images_takes_the_data_sets_own(runs):
    found = answer("score", runs / "trimodal1d")
    assert len(found["scores"]) == len(load_dataset("trimodal1d").ood)
    assert found["reference"] == "heldout"
    text = naign("score", runs / "trimodal1d").stdout
    assert "AUROC against heldout" in text
    assert "more" in text


def test_evaluate_appends_and_prints(runs):
    run = runs / "trimodal1d"
    before = len(read_metrics(run))
    options = ("--samples", 50, "--seed", 3, "--checkpoint", "last", "--no-report")
    result = naign("evaluate", run, *options, "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    records = read_metrics(run)
    assert len(records) == before + 1
    assert records[-1]["metrics"] == found["metrics"]
    assert {"metric", "subject", "condition", "value"} == set(found["metrics"][0])
    assert records[-1]["seed"] == 3
    assert found["files"] == []
    result = naign("evaluate", run, "--samples", 50)
    assert "modes covered" in result.stdout
    assert f"{run}/report/report.html" in result.stdout


def test_evaluate_measures_what_is_asked_for(runs, tmp_path):
    run, file = runs / "digits", tmp_path / "metrics.json"
    options = ("--samples", 50, "--no-report", "--no-baselines", "--features", "pca", "--json", file)
    result = naign("evaluate", run, "--metrics", "fld,fid", "--metrics", "idempotency,projection", *options)
    assert result.exit_code == 2
    assert "--metrics: expected some of projection, samples" in result.stderr
    result = naign("evaluate", run, "--metrics", "fld,fid", "--metrics", "projection", *options)
    assert result.exit_code == 0, result.output
    content = json.loads(file.read_text())
    assert content["features"] == "pca"
    expected = {"fld", "fid", "fixed_point_train", "non_identity"}
    assert expected <= {row["metric"] for row in content["metrics"]} == set(content["meaning"])
    assert {row["subject"] for row in content["metrics"]} <= {"f", "f(z)", "f(f(z))"}
    assert not any(row["metric"].startswith("kid") or row["condition"] for row in content["metrics"])
    assert "compared by pca" in result.stdout
    assert f"{file}" in result.stdout
    former = [
        option.replace("baselines", "anchors") if option == "--no-baselines" else option for option in options
    ]
    assert naign("evaluate", run, "--metrics", "fld,fid", "--metrics", "projection", *former).exit_code == 0
    assert json.loads(file.read_text()) == content


def test_evaluate_explains_missing_features(runs):
    result = naign("evaluate", runs / "digits", "--features", "vgg")
    assert result.exit_code == 2
    assert "--features: expected one of pixels, pca, classifier, inception, dinov2" in result.stderr
    result = naign("evaluate", runs / "digits", "--features", "inception", "--feature-weights", "no-file")
    assert result.exit_code == 2
    assert "Inception's weights are not at no-file" in result.stderr


def test_images_for_vectors_are_a_mistake(runs, pictures):
    result = naign("score", runs / "trimodal1d", pictures)
    assert result.exit_code == 2
    assert "not images" in result.stderr


def test_damaged_images_alone_are_a_mistake(runs, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    for command in ("restore", "score"):
        options = ["--out", tmp_path / "out"] if command == "restore" else []
        for target in (tmp_path, tmp_path / "bad.png"):
            result = naign(command, runs / "digits", target, *options)
            assert result.exit_code == 2
            assert result.stderr.startswith("error: bad.png: no image of a kind that is read")
            assert result.stderr.count("\n") == 1
    # What is not there at all is seen before anything is done.
    assert (
        naign(
            "restore", runs / "digits", tmp_path, tmp_path / "none.png", "--out", tmp_path / "out"
        ).exit_code
        == 2
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "worse.png").write_bytes(b"")
    result = naign("score", runs / "digits", tmp_path)
    assert result.exit_code == 2
    assert "images: none of 2 can be read: bad.png (" in result.stderr


def unreadable(folder):
    """Writes files of many kinds of damage into a folder; their names."""
    whole = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(whole, "PNG")
    (folder / "cut.png").write_bytes(whole.getvalue()[:50])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text[red].png").write_bytes(b"no image")
    Image.new("1", (9000, 9000)).save(folder / "huge.png")
    with (folder / "long.tif").open("wb") as file:
        file.truncate((64 << 20) + 1)
    Image.fromarray(np.full((8, 8), 300.0, dtype=np.float32)).save(folder / "depth.tif")
    return ["cut.png", "empty.jpg", "text[red].png", "huge.png", "long.tif", "depth.tif"]


@pytest.mark.parametrize("command", ["restore", "score", "score --reference"])
def test_unreadable_images_do_not_block_the_others(runs, pictures, tmp_path, command):
    names = unreadable(pictures)
    command, *reference = command.split()
    options = ["--out", tmp_path / "out"] if command == "restore" else []
    if reference:
        options = [pictures / "00001.png", *reference]
    result = naign(command, runs / "digits", *options, pictures)
    assert result.exit_code == 1
    for name in names:
        (line,) = [line for line in result.stderr.splitlines() if line.startswith(f"skipped: {name}: ")]
        assert len(line) > len(f"skipped: {name}: ") + 10
    total = len(names) + 3 + len(reference)
    assert result.stderr.endswith(f"{len(names)} of {total} images skipped; the others are done\n")
    found = naign(command, runs / "digits", *options, pictures, "--json")
    assert found.exit_code == 1
    skipped = json.loads(found.stdout)["skipped"]
    assert {row["name"] for row in skipped} == (set() if reference else set(names))
    if command == "restore":
        written = sorted((tmp_path / "out" / "images").iterdir())
        assert [path.name for path in written] == [f"0000{i}.png" for i in range(3)]
        expected = Projector.load(runs / "digits").restore(read_image(pictures / "00002.png"))
        assert (read_image(written[2]) - expected).abs().max() <= 1 / 127.5


def test_more_images_than_are_held_at_a_time(runs, tmp_path, monkeypatch):
    for seed in range(11):
        picture(tmp_path / "in" / f"{seed:02d}.png", seed)
    (tmp_path / "in" / "03.png").write_bytes(b"damaged")
    scores = {}
    for chunk in (512, 4):
        monkeypatch.setattr("naign_cli.images.CHUNK", chunk)
        result = naign("score", runs / "digits", tmp_path / "in", "--json")
        scores[chunk] = {row["name"]: row["energy"] for row in json.loads(result.stdout)["scores"]}
        assert (
            naign("restore", runs / "digits", tmp_path / "in", "--out", tmp_path / str(chunk)).exit_code == 1
        )
    assert len(scores[4]) == 10
    assert scores[4] == pytest.approx(scores[512], rel=1e-5)
    for file in sorted((tmp_path / "4" / "images").iterdir()):
        one, other = read_image(file), read_image(tmp_path / "512" / "images" / file.name)
        assert (one - other).abs().max() <= 1 / 127
    noisy = answer(
        "restore", runs / "digits", "--corrupt", "noise", "--count", 9, "--out", tmp_path / "noise"
    )
    assert len({row["psnr_before"] for row in noisy["images"]}) == 9


def test_samples_are_those_of_one_call_bit_for_bit(runs, tmp_path):
    projector = Projector.load(runs / "trimodal1d")
    expected = projector.sample(1100, seed=3)
    assert torch.equal(torch.cat(list(projector.sample_batches(1100, seed=3))), expected)
    answer("sample", runs / "trimodal1d", "-n", 1100, "--seed", 3, "--out", tmp_path)
    found = (tmp_path / "samples.csv").read_text().split()
    assert found == [f"{value:.8g}" for value in expected[:, 0].tolist()]


@pytest.mark.parametrize("run", ["digits", "trimodal1d"])
def test_more_samples_than_the_disk_holds_are_refused_before_anything_is_written(
    runs, tmp_path, run, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    monkeypatch.setattr("naign_ext.memory.available_bytes", lambda device: 1 << 80)
    (tmp_path / "out").mkdir()
    for count in ("1000000000", "99999999999999999"):
        result = naign("sample", runs / run, "-n", count, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: --count: {count} samples take about ")
        assert "ask for fewer" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_table_that_memory_cannot_hold_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("naign_ext.memory.available_bytes", lambda device: 1 << 20)
    result = naign("sample", runs / "trimodal1d", "-n", 10_000_000, "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: memory: a table of 10000000 samples takes at least ")
    assert list(tmp_path.iterdir()) == []


def test_samples_whose_names_fill_the_memory_are_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 60))
    monkeypatch.setattr("naign_ext.memory.available_bytes", lambda: 1 << 20)
    result = naign("sample", runs / "digits", "-n", 100_000, "--out", tmp_path)
    assert result.exit_code == 2
    assert "the names of 100000 files take about" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["digits", "trimodal1d"])
def test_a_stopped_sample_keeps_what_it_has(runs, tmp_path, run, monkeypatch):
    whole = Projector.sample_batches

    def stopped(*arguments, **options):
        yield next(whole(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(Projector, "sample_batches", stopped)
    result = naign("sample", runs / run, "-n", 700, "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.endswith("error: interrupted\n")
    expected = next(whole(Projector.load(runs / run), 700))
    if run == "digits":
        assert "512 files are written and kept" in result.stderr
        found = torch.stack([read_image(file) for file in sorted((tmp_path / "images").iterdir())])
        assert (found - expected.clamp(-1, 1)).abs().max() <= 1 / 127.5
    else:
        assert "samples.csv holds 512 rows" in result.stderr
        assert np.loadtxt(tmp_path / "samples.csv") == pytest.approx(expected[:, 0].numpy(), rel=1e-6)
    assert not list(tmp_path.rglob("*.part"))


def test_pretrained_folders_know_no_held_out_data(runs, tmp_path):
    Projector.load(runs / "digits").save_pretrained(tmp_path)
    result = naign("restore", tmp_path, "--corrupt", "blur")
    assert result.exit_code == 2
    assert "no config.yaml" in result.stderr


def test_bench_knn_writes_rows(tmp_path):
    file = tmp_path / "out.json"
    result = naign(
        "bench", "knn", "quick_plane", "--peer", "naign", "--repeats", 1, "--no-memory", "--json", file
    )
    assert result.exit_code == 0, result.output
    content = json.loads(file.read_text())
    row = content["rows"][0]
    assert row["peer"] == "naign"
    assert row["status"] == "ok"
    assert row["mismatches"] == 0
    assert "quick_plane" in result.stdout


def test_bench_loss_writes_rows(tmp_path):
    file = tmp_path / "out.json"
    result = naign("bench", "loss", "loss_mnist", "--repeats", 1, "--no-memory", "--json", file)
    assert result.exit_code == 0, result.output
    peers = {row["peer"] for row in json.loads(file.read_text())["rows"]}
    assert "naign" in peers
    assert len(peers) > 1
