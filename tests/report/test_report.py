"""The report of a run: complete, self-contained, and equal to what metrics.jsonl holds."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from naign_ext import Projector
from naign_ext.config import resolve_config
from naign_ext.data import Dataset, load_dataset
from naign_ext.metrics_log import read_metrics
from naign_ext.report import plots
from naign_ext.report.page import (
    accuracy_sentence,
    baselines_sentence,
    figure_rows,
    format_figure,
    render_page,
    restoration_rows,
    write_report,
)
from naign_ext.run import Run
from naign_ext.training.trainer import resume, train


def tiny_run(folder, dataset, *settings):
    fixed = ["steps=20", "objective.pool_size=64", "log.every=5", "log.tensorboard=false"]
    config = resolve_config(dataset, "quick", settings=[*fixed, *settings])
    train(config, folder)
    return config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "digits"
    tiny_run(run, "digits")
    return run, write_report(run, samples=100)


def check_picture(path):
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) > 100
        assert np.asarray(picture.convert("L")).std() > 5


def test_images_report(digits):
    run, report = digits
    names = {path.name for path in report.pictures}
    assert names == {"samples.png", "restored.png", "neighbours.png", "ood.png", "training.png"}
    for path in report.pictures:
        check_picture(path)
    assert report.page == run / "report" / "report.html"
    assert report.files[0] == report.page


def test_page_needs_nothing_beside_itself(digits):
    _, report = digits
    page = report.page.read_text(encoding="ascii")
    assert page.count("data:image/png;base64,") == len(report.pictures)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    assert "<script" not in page
    assert "{{" not in page
    assert "naign: digits" in page
    for row in figure_rows(report.figures):
        assert f">{row.value}<" in page
    for row in restoration_rows(report.figures):
        assert row.gain in page


def test_every_printed_figure_is_in_the_metrics(digits):
    run, report = digits
    record = read_metrics(run)[-1]
    assert record["kind"] == "evaluation"
    assert record["step"] == 20
    assert record["figures"] == report.figures
    assert record["features"] == report.features == "classifier"
    assert set(report.meaning) == set(report.figures)
    json.dumps(record, allow_nan=False)
    known = {format_figure(v) for v in record["figures"].values()}
    for row in figure_rows(report.figures):
        assert row.value.split(" of ")[0] in known
        assert not row.twice or row.twice in known


@pytest.mark.parametrize("name", ["trimodal1d", "moons"])
def test_toys_report(tmp_path, name):
    tiny_run(tmp_path, name)
    report = write_report(tmp_path, samples=200)
    assert {p.name for p in report.pictures} == {"samples.png", "landscape.png", "ood.png", "training.png"}
    for path in report.pictures:
        check_picture(path)
    assert ("modes" in report.figures) == (name == "trimodal1d")
    assert restoration_rows(report.figures) == []
    assert "Restoration" not in report.page.read_text()


def test_figures_alone_draw_nothing(tmp_path):
    tiny_run(tmp_path, "trimodal1d")
    report = write_report(tmp_path, samples=50, pictures=False, seed=4, weights="model", checkpoint="last")
    assert report.pictures == []
    assert not (tmp_path / "report").exists()
    record = read_metrics(tmp_path)[-1]
    assert (record["seed"], record["weights"]) == (4, "model")


def test_resuming_drops_the_evaluation_and_keeps_the_rest(tmp_path):
    tiny_run(tmp_path, "trimodal1d")
    write_report(tmp_path, samples=50, pictures=False)
    resume(tmp_path, changes={"steps": 25})
    kinds = [record["kind"] for record in read_metrics(tmp_path)]
    assert "evaluation" not in kinds
    assert kinds.count("train") == 5


def test_report_says_what_it_does(tmp_path):
    tiny_run(tmp_path, "trimodal1d")
    lines = []
    write_report(tmp_path, samples=50, say=lines.append)
    assert lines == ["measuring", "drawing"]


def test_high_dimensional_vectors_are_shown_by_principal_components(tmp_path):
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(100, 5, generator=rng)
    dataset = Dataset(name="rows", kind="vector", train=rows[:80], heldout=rows[80:])
    projector = Projector("mlp", [5], {"widths": [8]})
    check_picture(
        plots.draw_samples(
            projector.project, projector.sample(50, steps=0), dataset, tmp_path / "samples.png"
        )
    )


def test_colour_images_are_drawn(tmp_path):
    pictures = torch.rand(30, 3, 12, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    dataset = Dataset(name="photos", kind="image", train=pictures[:20], heldout=pictures[20:])
    projector = Projector("mlp", [3, 12, 16], {"widths": [8]})
    latents = projector.sample(40, steps=0)
    check_picture(plots.draw_samples(projector.project, latents, dataset, tmp_path / "a.png", steps=1))
    check_picture(plots.draw_restored(projector.project, dataset, tmp_path / "b.png", 0, {}))


def test_mosaic_places_images_on_white():
    images = torch.stack([torch.full((1, 2, 2), -1.0), torch.full((1, 2, 2), 0.0), torch.ones(1, 2, 2)])
    page = plots.mosaic(images, 2)
    assert page.shape == (5, 5, 3)
    assert (page[:2, :2] == 0).all()
    assert (page[:2, 3:] == 0.5).all()
    assert (page[2] == 1).all()
    assert (page[3:, 3:] == 1).all()


def test_no_records_no_curves(tmp_path):
    assert plots.draw_training([], tmp_path / "training.png") is None


def test_rows_put_anchors_and_repetitions_beside_their_figure():
    figures = {
        "fixed_point_train": 0.0123456,
        "samples": 1000.0,
        "modes_total": 8.0,
        "modes": 7.0,
        "modes_twice": 8.0,
        "ood_auroc": 0.9,
        "ood_auroc_normalised": 0.95,
        "anchor_ood_auroc_nearest": 0.93,
    }
    rows = {row.title: row for row in figure_rows(figures)}
    assert rows["rows judged"].value == "1000"
    assert [title for title in rows if title != "rows judged"] == [
        "fixed-point error, train",
        "modes covered",
        "OOD AUROC",
        "OOD AUROC, normalised",
    ]
    assert rows["fixed-point error, train"].value == "0.0123"
    assert (rows["modes covered"].value, rows["modes covered"].twice) == ("7 of 8", "8")
    assert rows["OOD AUROC"].anchors == {"nearest": "0.930"}
    assert rows["OOD AUROC, normalised"].anchors == {}
    assert baselines_sentence(figures).startswith("nearest: the nearest training row")


def test_accuracy_is_told_in_a_sentence():
    figures = {
        "restore_noise_1.0_accuracy_before": 0.4,
        "restore_noise_1.0_accuracy_after": 0.8,
        "anchor_accuracy_classifier": 0.98,
    }
    assert "noise of sigma 1: 0.4, after f 0.8 (clean images: 0.98)" in accuracy_sentence(figures)
    assert accuracy_sentence({}) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.12345, "0.123"), (-17.04, "-17"), (1.7e16, "1.7e+16"), (12345.6, "12346"), (0.0, "0")],
)
def test_numbers_have_three_digits(value, text):
    assert format_figure(value) == text


def test_text_is_escaped():
    config = resolve_config("trimodal1d", "quick", flags={"data_root": "<b>&"})
    page = render_page(config, Projector("mlp", [1], {"widths": [2]}), {}, [])
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page


def test_reports_of_nothing_are_users_errors(tmp_path):
    with pytest.raises(ValueError, match=r"expected a run folder with config\.yaml"):
        write_report(tmp_path)
    run = Run.create(resolve_config("trimodal1d"), tmp_path / "run")
    with pytest.raises(ValueError, match="no checkpoint there"):
        write_report(run)


def test_pictures_are_the_same_every_time(tmp_path):
    dataset = load_dataset("trimodal1d")
    latents = torch.linspace(-3, 3, 200)[:, None]
    first, second = (
        plots.draw_samples(torch.tanh, latents, dataset, tmp_path / f"{i}.png").read_bytes() for i in range(2)
    )
    assert first == second
