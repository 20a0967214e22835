"""The report of a run: complete, self-contained, and equal to what metrics.jsonl holds."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from naign_ext import Projector
from naign_ext.config import resolve_config
from naign_ext.data import Dataset, load_dataset
from naign_ext.evaluation import Condition, EvalContext, Results, Row
from naign_ext.evaluation.evaluate import measure
from naign_ext.evaluation.flat_keys import results_of
from naign_ext.evaluation.subjects import RESTORATIONS, Restored
from naign_ext.metrics_log import read_metrics
from naign_ext.pictures import MOST_BYTES
from naign_ext.report import plots, write_report
from naign_ext.report.page import Picture, render_page
from naign_ext.report.pictures import draw_pictures
from naign_ext.report.plots.sheet import enlargement, mosaic
from naign_ext.report.tables import (
    accuracy_sentence,
    baselines_sentence,
    format_number,
    memorisation_sentence,
    metric_rows,
    restoration_rows,
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
    assert names == {
        "samples.png", "neighbours.png", "interpolations.png", "restored.png", "ood.png", "training.png",
    }  # fmt: skip
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
    assert "{{" not in page and "{%" not in page
    assert "naign: digits" in page
    for row in metric_rows(report.results):
        assert f">{row.value}<" in page
    for row in restoration_rows(report.results):
        assert row.gain in page


def test_every_printed_number_is_in_the_metrics(digits):
    run, report = digits
    record = read_metrics(run)[-1]
    assert record["kind"] == "evaluation"
    assert record["step"] == 20
    assert Results.from_json(record["metrics"]) == report.results
    assert record["features"] == report.features == "classifier"
    assert list(report.meaning) == report.results.metrics
    json.dumps(record, allow_nan=False)
    known = {format_number(row["value"]) for row in record["metrics"]}
    for row in metric_rows(report.results):
        assert row.value.split(" of ")[0] in known
        assert not row.twice or row.twice in known


@pytest.mark.parametrize("name", ["trimodal1d", "moons"])
def test_toys_report(tmp_path, name):
    tiny_run(tmp_path, name)
    report = write_report(tmp_path, samples=200)
    assert {p.name for p in report.pictures} == {"samples.png", "landscape.png", "ood.png", "training.png"}
    for path in report.pictures:
        check_picture(path)
    assert ("modes" in report.results.metrics) == (name == "trimodal1d")
    assert restoration_rows(report.results) == []
    assert "Restoration" not in report.page.read_text()


def test_metrics_alone_draw_nothing(tmp_path):
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


def test_pictures_show_what_was_judged(tmp_path, monkeypatch):
    dataset = load_dataset("digits").for_test()
    context = EvalContext.prepare(lambda x: x.clamp(-1, 1) * 0.5, dataset, samples=50, features="pixels")
    shown = {}
    for name in ("draw_samples", "draw_neighbours", "draw_interpolations", "draw_ood"):
        monkeypatch.setattr(plots, name, lambda *given, kept=name: shown.setdefault(kept, given)[-1])
    monkeypatch.setattr(
        plots, "draw_restored", lambda *given: {shown.setdefault("draw_restored", given)[-1]: "mask"}
    )
    results = measure(context, {"psnr", "gain", "ood_auroc", "authenticity", "near_copies"})
    pictures = draw_pictures(context, results, [], tmp_path)
    assert [picture.path.name for picture in pictures] == [
        "samples.png",
        "neighbours.png",
        "interpolations.png",
        "restored.png",
        "ood.png",
    ]
    _, samples, _ = shown["draw_samples"]
    assert torch.equal(samples["f(z)"], context.once)
    assert torch.equal(samples["f(f(z))"], context.twice)
    assert torch.equal(shown["draw_neighbours"][0], context.once)
    between, fades, _ = shown["draw_interpolations"]
    assert [len(images) for images in between] == [8, 8, 8] and len(fades) == 2
    for i, images in enumerate(between):
        torch.testing.assert_close(images[0], context.once[2 * i])
        torch.testing.assert_close(images[-1], context.once[2 * i + 1])
    for mixed, after in fades:
        assert all((mixed[end] == dataset.heldout).flatten(1).all(1).any() for end in (0, -1))
        torch.testing.assert_close(after, mixed * 0.5)
    copied = f"{results.value('near_copies', 'f(z)'):.0%} are near copies"
    assert [copied in picture.caption for picture in pictures] == [False, True, False, False, False]
    subjects = {(s.name, s.condition): s for s in context.subjects(Restored.own)}
    expected = []
    for condition in RESTORATIONS:
        under = condition if condition.corruption == "noise" else replace(condition, known=True)
        expected += [subjects["f", condition], subjects["f at its best", under]]
    assert list(shown["draw_restored"][0]) == expected
    assert all(
        ("At its best" in picture.caption) == ("restored" in picture.path.name) for picture in pictures[:-1]
    )


def test_high_dimensional_vectors_are_shown_by_principal_components(tmp_path):
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(100, 5, generator=rng)
    projector = Projector("mlp", [5], {"widths": [8]})
    once = projector.sample(50)
    samples = {"f(z)": once, "f(f(z))": projector.project(once)}
    check_picture(plots.draw_samples(rows[:80], samples, tmp_path / "samples.png"))


def test_colour_images_are_drawn(tmp_path):
    pictures = torch.rand(30, 3, 12, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    projector = Projector("mlp", [3, 12, 16], {"widths": [8]})
    check_picture(plots.draw_samples(pictures[:20], {"f(z)": projector.sample(40)}, tmp_path / "a.png"))
    heldout = pictures[20:]
    dataset = Dataset(name="photos", kind="image", train=pictures[:20], heldout=heldout)
    context = EvalContext.prepare(projector.f, dataset, samples=10)
    restored = [subject for subject in context.subjects(Restored.own) if subject.name == "f"]
    for path in plots.draw_restored(restored, Results(), tmp_path / "b.png"):
        check_picture(path)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (25, 1), (28, 3), (64, 3)])
def test_images_of_any_size_are_shown_crisply_in_small_files(tmp_path, side, channels):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, channels, 8, 8, generator=generator) * 2 - 1
    train, samples = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").chunk(2)
    strips = plots.draw_neighbours(samples, train, tmp_path / "neighbours.png")
    panels = plots.draw_samples(train, {"f(z)": samples, "f(f(z))": samples}, tmp_path / "samples.png")
    for path in (strips, panels):
        assert path.stat().st_size <= MOST_BYTES
        with Image.open(path) as picture:
            assert 640 <= picture.width <= 2 * 952
    if side > 28:
        return
    times = enlargement(train)
    row = mosaic(samples[:8], 8, times=times)
    with Image.open(strips) as picture:
        shown = np.asarray(picture.convert("RGB"))[: row.shape[0], 200 : 200 + row.shape[1]] / 255
    tolerance = 1 / 255 if channels == 1 else 0.2
    assert np.abs(shown - row).max() <= tolerance
    block = shown[: side * times, : side * times].reshape(side, times, side, times, 3)
    assert (block == block[:, :1, :, :1]).all() and times >= 4


def test_large_images_are_halved_and_the_caption_says_so(tmp_path):
    images = torch.rand(12, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert mosaic(images[:1], 1).shape == (64, 64, 3)
    dataset = Dataset(name="photos", kind="image", train=images[:9], heldout=images[9:])
    context = EvalContext.prepare(lambda x: x.clamp(-1, 1), dataset, samples=12)
    pictures = draw_pictures(context, Results(), [], tmp_path)
    restored = {p.path.name: p.caption for p in pictures if "restored" in p.path.name}
    assert list(restored) == ["restored.png", "restored-2.png", "restored-3.png", "restored-4.png"]
    assert [re.search(r"spoilt \((.*?)\)", caption)[1] for caption in restored.values()] == [
        "noise 0.5, noise 1.0", "mask", "blur", "downsample",
    ]  # fmt: skip
    assert all("shown at 1/2 of their size" in picture.caption for picture in pictures[1:])
    assert all(picture.path.stat().st_size <= MOST_BYTES for picture in pictures)


def test_one_image_held_out_is_mixed_with_none(tmp_path):
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    dataset = Dataset(name="few", kind="image", train=images[:11], heldout=images[11:])
    context = EvalContext.prepare(lambda x: x.clamp(-1, 1), dataset, samples=12)
    captions = [picture.caption for picture in draw_pictures(context, Results(), [], tmp_path)]
    assert "f from one latent to another, along the great circle through both." in captions


def test_some_are_taken_from_everywhere():
    assert plots.spread(torch.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert plots.spread(torch.arange(3), 4).tolist() == [0, 1, 2]


def test_mosaic_places_images_on_white():
    images = torch.stack([torch.full((1, 2, 2), -1.0), torch.full((1, 2, 2), 0.0), torch.ones(1, 2, 2)])
    page = mosaic(images, 2)
    assert page.shape == (5, 5, 3)
    assert (page[:2, :2] == 0).all()
    assert (page[:2, 3:] == 0.5).all()
    assert (page[2] == 1).all()
    assert (page[3:, 3:] == 1).all()


def test_no_records_no_curves(tmp_path):
    assert plots.draw_training([], tmp_path / "training.png") is None


def test_rows_put_baselines_and_repetitions_beside_their_metric():
    results = Results(
        (
            Row("fixed_point_train", "f", 0.0123456),
            Row("rows_judged", "f(z)", 1000.0),
            Row("modes_total", "data", 8.0),
            Row("modes", "f(z)", 7.0),
            Row("modes", "f(f(z))", 8.0),
            Row("ood_auroc", "f", 0.9),
            Row("ood_auroc_normalised", "f", 0.95),
            Row("ood_auroc", "nearest", 0.93),
        )
    )
    rows = {row.title: row for row in metric_rows(results)}
    assert rows["rows judged"].value == "1000"
    assert [title for title in rows if title != "rows judged"] == [
        "fixed-point error, train",
        "modes covered",
        "OOD AUROC",
        "OOD AUROC, normalised",
    ]
    assert rows["fixed-point error, train"].value == "0.0123"
    assert (rows["modes covered"].value, rows["modes covered"].twice) == ("7 of 8", "8")
    assert rows["OOD AUROC"].baselines == {"nearest": "0.930"}
    assert rows["OOD AUROC, normalised"].baselines == {}
    assert baselines_sentence(results).startswith("nearest: the nearest training row")


def test_restoration_has_a_line_for_each_condition():
    known = Condition("mask", known=True)
    results = Results(
        (
            Row("psnr", "corrupted", 8.0, known),
            Row("psnr", "f", 11.5, known),
            Row("gain", "f", 3.5, known),
            Row("gain", "f at its best", 4.0, known),
            Row("gain", "filter", -0.25, known),
        )
    )
    (row,) = restoration_rows(results)
    assert row.what == "mask, known kept"
    assert row.numbers == ["8.00", "11.50", "+3.50", "", "+4.00", "-0.25", "", ""]
    assert metric_rows(results) == []


def test_accuracy_is_told_in_a_sentence():
    results = results_of(
        {
            "restore_noise_1.0_accuracy_before": 0.4,
            "restore_noise_1.0_accuracy_after": 0.8,
            "anchor_accuracy_classifier": 0.98,
        }
    )
    assert "noise of sigma 1: 0.4, after f 0.8 (clean images: 0.98)" in accuracy_sentence(results)
    assert accuracy_sentence(Results()) == ""


def test_memorisation_is_told_in_a_sentence():
    rows = [Row("authenticity", "f(z)", 0.25), Row("near_copies", "f(z)", 0.5)]
    assert "25% of the samples are farther" in memorisation_sentence(Results(tuple(rows)))
    assert "50% are near copies" in memorisation_sentence(Results(tuple(rows)))
    half = Row("authenticity", "half", 0.7)
    assert "training images against the other, 70%" in memorisation_sentence(Results((*rows, half)))
    assert memorisation_sentence(Results(tuple(rows[:1]))) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.12345, "0.123"), (-17.04, "-17"), (1.7e16, "1.7e+16"), (12345.6, "12346"), (0.0, "0")],
)
def test_numbers_have_three_digits(value, text):
    assert format_number(value) == text


def test_text_is_escaped(tmp_path):
    config = resolve_config("trimodal1d", "quick", flags={"data_root": "<b>&"})
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    picture = Picture('<i>"caption"', tmp_path / "a.png")
    page = render_page(config, Projector("mlp", [1], {"widths": [2]}), Results(), [picture])
    assert "<b>&" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "<i>" not in page
    assert '<img width="150"' in page
    assert "&lt;i&gt;&#34;caption&#34;" in page


def test_reports_of_nothing_are_users_errors(tmp_path):
    with pytest.raises(ValueError, match=r"run: expected a run folder with config\.yaml"):
        write_report(tmp_path)
    run = Run.create(resolve_config("trimodal1d"), tmp_path / "run")
    with pytest.raises(ValueError, match="no checkpoint there"):
        write_report(run)


def test_a_report_of_a_checkpoint_belongs_to_its_run(tmp_path):
    tiny_run(tmp_path, "trimodal1d")
    (path,) = Run.open(tmp_path).checkpoint_paths()
    report = write_report(path, samples=50, pictures=False)
    assert report.page == tmp_path / "report" / "report.html"
    assert read_metrics(tmp_path)[-1]["kind"] == "evaluation"


def test_pictures_are_the_same_every_time(tmp_path):
    train = load_dataset("trimodal1d").train
    once = torch.tanh(torch.linspace(-3, 3, 200)[:, None])
    first, second = (
        plots.draw_samples(train, {"f(z)": once}, tmp_path / f"{i}.png").read_bytes() for i in range(2)
    )
    assert first == second
