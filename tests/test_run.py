"""A run's folder: begun once, opened by any path of it, its data read once."""

import fcntl
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from naign_ext import run as runs
from naign_ext.checkpoint import CheckpointError, checkpoint_paths, load_checkpoint
from naign_ext.config import ConfigError, load_config, resolve_config, save_config
from naign_ext.data import DataUnavailableError
from naign_ext.metrics_log import read_metrics
from naign_ext.run import Run, is_run, load_configured
from naign_ext.run_lock import exclusive
from naign_ext.training.callbacks import Callback
from naign_ext.training.trainer import Trainer, resume, train

SMALL = (
    "steps=4",
    "batch_size=16",
    "model.widths=[8]",
    "objective.pool_size=32",
    "log.every=2",
    "log.samples_every=0",
    "log.checkpoint_every=2",
    "log.tensorboard=false",
)


def configuration(*settings):
    return resolve_config("8gaussians", settings=[*SMALL, *settings])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(configuration(), tmp_path_factory.mktemp("runs") / "run").run


@pytest.fixture
def count_loads(monkeypatch):
    loads = []

    def load(config):
        loads.append(config.dataset)
        return load_configured(config)

    monkeypatch.setattr(runs, "load_configured", load)
    return loads


def test_a_run_is_begun_with_its_configuration_and_the_parameters_of_its_data(tmp_path, count_loads):
    run = Run.create(configuration(), tmp_path / "a" / "run")
    assert load_config(run.path / "config.yaml") == run.config
    assert run.config.data_parameters == json.loads(json.dumps(run.dataset.parameters)) != {}
    assert run.config.model_copy(update={"data_parameters": {}}) == configuration()
    assert run.latest_state() is None and run.checkpoint_paths() == run.metrics() == []
    run.check_dataset()
    assert count_loads == ["8gaussians"]
    with pytest.raises(ConfigError, match="already holds a run"):
        Run.create(configuration(), run.path)
    assert count_loads == ["8gaussians"]


def test_a_folder_with_checkpoints_is_not_begun_anew(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_00000002").mkdir()
    with pytest.raises(ConfigError, match="already holds a run"):
        Run.create(configuration(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_the_data_are_read_once_and_only_when_asked_for(trained, count_loads):
    run = Run.open(trained)
    assert count_loads == []
    first = run.dataset
    run.check_dataset()
    assert run.dataset is first and count_loads == ["8gaussians"]
    assert torch.equal(first.train, load_configured(run.config).train)


def test_a_run_is_opened_by_any_path_of_it(trained, monkeypatch):
    early, last = checkpoint_paths(trained)
    by_folder, by_checkpoint = Run.open(str(trained)), Run.open(early)
    assert by_folder.path == by_checkpoint.path == trained and by_folder.config == by_checkpoint.config
    assert (by_folder.named, by_checkpoint.named) == (None, early)
    assert (repr(by_folder), repr(by_checkpoint)) == (f"Run('{trained}')", f"Run('{early}')")
    assert by_folder.checkpoint_path("last") == last and by_folder.checkpoint(2).step == 2
    assert by_checkpoint.checkpoint_path("last") == early and by_checkpoint.checkpoint(4).step == 2
    assert (by_folder.latest_state().step, by_checkpoint.latest_state().step) == (4, 2)
    monkeypatch.chdir(early.parent)
    here = Run.open(early.name)
    assert here.path.samefile(trained) and here.checkpoint("best").step == 2


def test_a_checkpoints_folder_may_be_damaged_and_still_names_its_run(trained):
    assert is_run(trained) and is_run(trained / "checkpoints" / "step_00000009")
    assert not is_run(trained.parent) and not is_run(trained / "checkpoints")
    with pytest.raises(CheckpointError, match="damaged"):
        Run.open(trained / "checkpoints" / "step_00000009").checkpoint()


def test_where_there_is_no_run_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a run folder with config\.yaml"):
        Run.open(tmp_path)


def test_only_what_may_change_is_changed(trained):
    run = Run.open(trained, {"steps": 9, "log": {"every": 1}})
    assert (run.config.steps, run.config.log.every, run.config.log.samples_every) == (9, 1, 0)
    assert load_config(trained / "config.yaml").steps == 4
    with pytest.raises(ConfigError, match=r"^seed: cannot change"):
        Run.open(trained, {"seed": 3})
    with pytest.raises(ConfigError, match=r"^steps: "):
        Run.open(trained, {"steps": 0})


def test_going_on_from_a_step_gives_up_what_came_after(tmp_path):
    path = train(configuration(), tmp_path / "run").run
    assert [r["step"] for r in read_metrics(path) if r["kind"] == "train"] == [2, 4]
    run = Run.open(path, {"steps": 6})
    run.go_on_from(2)
    assert [p.name for p in run.checkpoint_paths()] == ["step_00000002"]
    assert {r["step"] for r in run.metrics()} == {2}
    assert load_config(path / "config.yaml").steps == 6


def test_other_data_or_another_configuration_are_refused(trained):
    run = Run.open(trained)
    run.config = run.config.model_copy(update={"data_parameters": {"other": 1}})
    with pytest.raises(ConfigError, match="is not what"):
        run.check_dataset()
    run.config = run.config.model_copy(update={"batch_size": 8})
    with pytest.raises(ConfigError, match=r"^batch_size: config\.yaml is not what"):
        run.latest_state()


def test_the_projector_is_that_of_the_checkpoint(trained):
    early, _ = checkpoint_paths(trained)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for run, which in ((Run.open(trained), 2), (Run.open(early), "best")):
        projector = run.projector("cpu", "model", which)
        assert projector.about["step"] == 2
        assert torch.equal(projector.project(x), load_checkpoint(early).build("model")(x).detach())


def test_records_are_appended(tmp_path):
    run = Run.create(configuration(), tmp_path / "run")
    for step in (1, 2):
        with run.log(step) as log:
            log.write({"kind": "evaluation", "step": step})
    assert run.metrics() == [{"kind": "evaluation", "step": step} for step in (1, 2)]


def write_photos(folder, seed=0, count=8):
    folder.mkdir(parents=True)
    for index in range(count):
        values = np.random.default_rng(seed + index).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index}.png")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PHOTOS = ("image_size=8", "augment.flip=false", "model.architecture=mlp")


@pytest.fixture
def of_photos(tmp_path, monkeypatch):
    """A run whose data were named by a path relative to where it was begun."""
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    config = resolve_config("folder:photos", settings=[*SMALL, *PHOTOS])
    return train(config, tmp_path / "run").run


def test_a_run_finds_its_data_from_any_working_directory(of_photos, tmp_path, monkeypatch):
    elsewhere = tmp_path / "else" / "where"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert load_config(of_photos / "config.yaml").dataset == f"folder:{tmp_path / 'photos'}"
    assert len(Run.open(of_photos).dataset.train) > 0
    assert resume(of_photos, changes={"steps": 6}).step == 6


@pytest.mark.parametrize("change", [{"data_root": "pictures"}, {"dataset": "folder:pictures"}], ids=str)
def test_data_that_were_moved_are_known_by_their_content(of_photos, tmp_path, monkeypatch, change):
    before = Run.open(of_photos).dataset
    (tmp_path / "photos").rename(tmp_path / "pictures")
    with pytest.raises(DataUnavailableError, match="give their new place by --data-root"):
        resume(of_photos, changes={"steps": 6})
    assert torch.equal(Run.open(of_photos, change).dataset.heldout, before.heldout)
    assert resume(of_photos, changes={"steps": 6, **change}).step == 6
    monkeypatch.chdir("/")
    assert load_config(of_photos / "config.yaml").dataset == f"folder:{tmp_path / 'pictures'}"
    assert resume(of_photos, changes={"steps": 8}).step == 8


def test_a_place_edited_by_hand_serves_and_an_archive_of_the_same_files_too(of_photos, tmp_path):
    config = load_config(of_photos / "config.yaml")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted((tmp_path / "photos").iterdir()):
            archive.write(path, f"inside/{path.name}")
    moved = config.model_copy(update={"dataset": f"folder:{tmp_path / 'photos.zip'}"})
    save_config(moved, of_photos / "config.yaml")
    assert resume(of_photos, changes={"steps": 6}).step == 6


def test_a_place_recorded_relative_to_the_working_directory_still_serves_there(
    of_photos, tmp_path, monkeypatch
):
    config = load_config(of_photos / "config.yaml")
    save_config(config.model_copy(update={"dataset": "folder:photos"}), of_photos / "config.yaml")
    assert resume(of_photos, changes={"steps": 6}).step == 6
    monkeypatch.chdir("/")
    assert resume(of_photos, changes={"steps": 8, "data_root": tmp_path / "photos"}).step == 8


def test_other_contents_are_refused_wherever_they_lie(of_photos, tmp_path):
    write_photos(tmp_path / "others", seed=50)
    before = contents(of_photos)
    for change in ({"data_root": "others"}, {"dataset": "folder:others"}):
        with pytest.raises(
            ConfigError, match=r"^data: folder:/.*others is not what .*run was trained on; see"
        ):
            Run.open(of_photos, change).dataset  # noqa: B018 - it is read
        with pytest.raises(ConfigError, match="is not what"):
            resume(of_photos, changes={"steps": 6, **change})
    write_photos(tmp_path / "photos" / "more", seed=90, count=1)
    with pytest.raises(ConfigError, match="is not what"):
        Run.open(of_photos).dataset  # noqa: B018
    assert contents(of_photos) == before


def test_only_the_place_of_data_can_change(trained, of_photos):
    for run, change in ((trained, "moons"), (trained, "folder:photos"), (of_photos, "moons")):
        with pytest.raises(ConfigError, match=r"^dataset: cannot change when a run is resumed"):
            Run.open(run, {"dataset": change})
    with pytest.raises(ConfigError, match=r"^dataset, data_root: expected one of them"):
        Run.open(of_photos, {"dataset": "folder:photos", "data_root": "photos"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def elsewhere(code, *arguments):
    """Another process that says "ready" once its code has run, and ends when its input does."""
    code = f"import sys\nfrom pathlib import Path\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


HOLD = "from naign_ext.run_lock import exclusive\nheld = exclusive(Path(sys.argv[1]))\nheld.__enter__()"


def test_a_run_is_trained_by_one_process_and_the_lock_dies_with_it(tmp_path):
    path = train(configuration(), tmp_path / "run").run
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    other = elsewhere(HOLD, path)
    with pytest.raises(ConfigError, match=r"^run: another process trains in .*run; wait"):
        resume(path, changes={"steps": 6})
    other.kill()
    other.communicate()
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"} == before
    assert resume(path, changes={"steps": 6}).step == 6
    assert ".lock" not in names(path)


def test_a_folder_in_which_another_process_begins_is_not_begun_in(tmp_path):
    (tmp_path / "run").mkdir()
    other = elsewhere(HOLD, tmp_path / "run")
    with pytest.raises(ConfigError, match="another process trains in"):
        Run.create(configuration(), tmp_path / "run")
    assert names(tmp_path / "run") == [".lock"]
    other.communicate(b"")
    assert Run.create(configuration(), tmp_path / "run").path == tmp_path / "run"


def test_a_folder_that_was_removed_and_begun_anew_keeps_the_lock_of_who_is_there(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    first = exclusive(folder)
    first.__enter__()
    shutil.rmtree(folder)
    folder.mkdir()
    with exclusive(folder):
        first.__exit__(None, None, None)
        with pytest.raises(ConfigError, match="another process trains"), exclusive(folder):
            pass
    assert list(folder.iterdir()) == []


def test_a_lock_that_was_removed_while_it_was_opened_is_not_taken_for_the_folders(tmp_path, monkeypatch):
    flock, opened = fcntl.flock, []

    def let_go_meanwhile(descriptor, how):
        if not opened:
            (tmp_path / ".lock").unlink()
        opened.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", let_go_meanwhile)
    with exclusive(tmp_path):
        assert len(opened) == 2 and names(tmp_path) == [".lock"]
    assert names(tmp_path) == []


def test_of_several_folders_the_first_free_one_is_taken(tmp_path):
    folders = [tmp_path / "runs" / name for name in "abc"]
    assert [Run.create(configuration(), folders).path.name for _ in folders] == ["a", "b", "c"]
    with pytest.raises(ConfigError, match=r"^out: .* are taken"):
        Run.create(configuration(), folders)


BAD_STARTS = {
    "data that are not there": ["dataset=folder:nowhere"],
    "rows that are not there": ["train_rows=99999999"],
    "augmentation of vectors": ["augment.flip=true"],
    "a device that is not there": ["device=cuda:99"],
    "a first update that fails": ["optimiser.lr=1e30", "optimiser.grad_clip=0", "model.input_gain=1e38"],
}


@pytest.mark.parametrize("settings", BAD_STARTS.values(), ids=BAD_STARTS)
def test_a_start_that_fails_leaves_nothing_behind(tmp_path, settings):
    with pytest.raises((ValueError, RuntimeError)):
        train(configuration(*settings), tmp_path / "runs" / "run")
    assert names(tmp_path) == []
    kept = tmp_path / "kept"
    (kept / "samples").mkdir(parents=True)
    (kept / "notes.txt").write_text("mine")
    with pytest.raises((ValueError, RuntimeError)):
        train(configuration(*settings), kept)
    assert names(kept) == ["notes.txt", "samples"]
    assert train(configuration(), kept).status == "completed"


def test_a_run_that_fails_after_an_update_is_kept(tmp_path):
    class Fail(Callback):
        def on_update(self, trainer, step):
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        Trainer(Run.create(configuration(), tmp_path / "run"), [Fail()]).fit()
    assert "config.yaml" in names(tmp_path / "run")
    assert resume(tmp_path / "run").status == "completed"
