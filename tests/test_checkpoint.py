"""Checkpoints: complete or absent, checked byte for byte, the last two and the best kept."""

import json
import os
import shutil
import tracemalloc

import pytest
import torch

from naign_ext.checkpoint import (
    TENSOR_FILES,
    CheckpointError,
    checkpoint_paths,
    load_checkpoint,
    remove_later_checkpoints,
    remove_old_checkpoints,
    save_checkpoint,
)
from naign_ext.checkpoint import _read_info as read_info
from naign_ext.models import build_model

OPTIONS = {"widths": [8], "activation": "relu", "normalisation": "batch", "input_gain": 2.0}


def save(run, step, score=None):
    torch.manual_seed(step)
    weights = build_model("mlp", (2,), **OPTIONS).state_dict()
    tensors = {
        "model": weights,
        "ema": {name: value * 2 for name, value in weights.items()},
        "optimizer": {"body.0.weight/exp_avg": torch.randn(3, 3)},
        "state": {"random/cpu": torch.get_rng_state(), "objective/match.indices": torch.arange(4)},
    }
    info = {
        "score": score,
        "config": {"seed": step},
        "model": {"architecture": "mlp", "options": OPTIONS},
        "sample_shape": [2],
        "latent_scale": 1.5,
        "seconds": 0.1 + step,
    }
    return save_checkpoint(run, step, tensors, info), tensors, info


def steps(run):
    return [int(p.name.removeprefix("step_")) for p in checkpoint_paths(run)]


def test_everything_reads_back_bit_for_bit(tmp_path):
    path, tensors, info = save(tmp_path, 7)
    checkpoint = load_checkpoint(tmp_path, "last")
    assert (checkpoint.path, checkpoint.step) == (path, 7)
    for name in TENSOR_FILES:
        assert checkpoint.tensors[name].keys() == tensors[name].keys()
        assert all(torch.equal(checkpoint.tensors[name][k], v) for k, v in tensors[name].items())
    assert {key: checkpoint.info[key] for key in info} == info
    assert checkpoint.sample_shape == (2,) and checkpoint.latent_scale == 1.5
    assert checkpoint.config == {"seed": 7}


def test_network_is_built_from_the_checkpoint_alone(tmp_path):
    save(tmp_path, 1)
    checkpoint = load_checkpoint(tmp_path)
    before = torch.get_rng_state()
    f, average = checkpoint.build("model"), checkpoint.build("ema")
    assert torch.equal(torch.get_rng_state(), before)
    assert not f.training and not average.training
    assert all(torch.equal(f.state_dict()[k], v) for k, v in checkpoint.model.items())
    assert all(torch.equal(average.state_dict()[k], v) for k, v in checkpoint.ema.items())
    checkpoint.info["model"]["options"] = OPTIONS | {"widths": [9]}
    with pytest.raises(CheckpointError, match="does not fit its model"):
        checkpoint.build()


def test_last_two_and_best_are_kept(tmp_path):
    for step, score in ((1, 5.0), (2, 3.0), (3, 4.0), (4, None), (5, 6.0), (6, 3.5)):
        save(tmp_path, step, score)
        remove_old_checkpoints(tmp_path)
    assert steps(tmp_path) == [2, 5, 6]
    assert load_checkpoint(tmp_path).step == 2
    assert load_checkpoint(tmp_path, "last").step == 6
    assert load_checkpoint(tmp_path, 5).step == 5
    with pytest.raises(CheckpointError, match="no checkpoint of step 4; there are 2, 5, 6"):
        load_checkpoint(tmp_path, 4)
    with pytest.raises(CheckpointError, match="which: expected"):
        load_checkpoint(tmp_path, "newest")
    remove_later_checkpoints(tmp_path, 2)
    assert steps(tmp_path) == [2]


def test_without_a_score_the_last_is_the_best(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert load_checkpoint(tmp_path).step == 2


def test_a_checkpoint_may_be_named_by_its_folder(tmp_path):
    path, _, _ = save(tmp_path, 1)
    save(tmp_path, 2)
    assert load_checkpoint(path).step == 1


def test_a_step_saved_again_replaces_the_first(tmp_path):
    save(tmp_path, 1, 5.0)
    save(tmp_path, 1, 4.0)
    assert load_checkpoint(tmp_path).info["score"] == 4.0
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]


def test_what_others_have_put_beside_checkpoints_is_left_alone(tmp_path):
    save(tmp_path, 1, 5.0)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step_00000001", folder / "my-backup")
    shutil.copytree(folder / "step_00000001", folder / "step_00000001_copy")
    for name in (".hidden", ".writing-mine", "step_00000000", "step_00000003"):
        (folder / name).mkdir()
        (folder / name / "notes.txt").write_text("mine")
    (folder / "step_00000004").write_text("a file")
    (folder / "step_00000001" / "notes.txt").write_text("mine")
    theirs = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in TENSOR_FILES:
        del theirs[folder / "step_00000001" / f"{name}.safetensors"]
    del theirs[folder / "step_00000001" / "state.json"], theirs[folder / "step_00000001" / "notes.txt"]
    del theirs[folder / "step_00000003" / "notes.txt"], theirs[folder / "step_00000004"]
    for step, score in ((2, 4.0), (3, 3.0), (4, 2.0)):
        assert load_checkpoint(tmp_path, "last").step == steps(tmp_path)[-1] < step
        save(tmp_path, step, score)
        remove_old_checkpoints(tmp_path)
    remove_later_checkpoints(tmp_path, 3)
    assert steps(tmp_path) == [3] and load_checkpoint(tmp_path, "last").step == 3
    assert {path: path.read_bytes() for path in theirs} == theirs
    for name in ("step_00000001", "step_00000003"):
        assert (folder / f"{name}.kept" / "notes.txt").read_text() == "mine"
    assert (folder / "step_00000004.kept").read_text() == "a file"
    assert not [path for path in folder.iterdir() if path.name.startswith((".replaced", ".removing"))]


def test_a_checkpoint_that_is_a_link_is_read_and_only_the_link_is_removed(tmp_path):
    path, _, _ = save(tmp_path, 1)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert load_checkpoint(tmp_path).step == 1
    remove_later_checkpoints(tmp_path, 0)
    assert steps(tmp_path) == [] and load_checkpoint(tmp_path / "elsewhere").step == 1


def damage(path, how):
    weights = path / "ema.safetensors"
    contents = bytearray(weights.read_bytes())
    state = json.loads((path / "state.json").read_text())
    if how == "flipped bit":
        contents[-3] ^= 1
    elif how == "cut off":
        contents = contents[:-10]
    elif how == "empty":
        contents = b""
    elif how == "pickle":
        contents = b"\x80\x04" + bytes(contents[2:])
    elif how == "no tensors":
        weights.unlink()
        return
    elif how == "no state":
        (path / "state.json").unlink()
        return
    elif how == "state not JSON":
        (path / "state.json").write_text('{"step": 1')
        return
    else:
        state[{"other program": "format", "other version": "version", "lacking": "files"}[how]] = "x"
        (path / "state.json").write_text(json.dumps(state))
        return
    weights.write_bytes(bytes(contents))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("flipped bit", "damaged: ema.safetensors does not have the hash"),
        ("cut off", r"damaged: ema.safetensors has \d+ bytes, expected \d+"),
        ("empty", "damaged: ema.safetensors has 0 bytes"),
        ("pickle", "damaged: ema.safetensors does not have the hash"),
        ("no tensors", "damaged: ema.safetensors cannot be read"),
        ("no state", "damaged: state.json cannot be read"),
        ("state not JSON", "damaged: state.json is not JSON"),
        ("other program", "foreign: state.json is not of a naign-checkpoint"),
        ("other version", "foreign: format version 'x', expected one of"),
        ("lacking", "damaged: state.json does not have the hash"),
    ],
)
def test_damage_is_said_and_the_previous_good_one_offered(tmp_path, how, message):
    good, _, _ = save(tmp_path, 1)
    middle, _, _ = save(tmp_path, 2)
    last, _, _ = save(tmp_path, 3)
    damage(middle, "cut off")
    damage(last, how)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path, "last")
    assert caught.value.previous == good
    assert str(last) in str(caught.value) and f"--resume {good}" in str(caught.value)
    assert load_checkpoint(caught.value.previous).step == 1


def test_the_only_one_damaged_offers_nothing(tmp_path):
    path, _, _ = save(tmp_path, 1)
    damage(path, "cut off")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path)
    assert caught.value.previous is None and "--resume" not in str(caught.value)


def test_a_damaged_one_is_never_the_best(tmp_path):
    path, _, _ = save(tmp_path, 1, 1.0)
    save(tmp_path, 2, 2.0)
    damage(path, "state not JSON")
    assert load_checkpoint(tmp_path, "best").step == 2


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        load_checkpoint(tmp_path)


def test_no_pickle_is_written(tmp_path):
    path, _, _ = save(tmp_path, 1)
    assert {p.name for p in path.iterdir()} == {*(f"{n}.safetensors" for n in TENSOR_FILES), "state.json"}
    for name in TENSOR_FILES:
        contents = (path / f"{name}.safetensors").read_bytes()
        length = int.from_bytes(contents[:8], "little")
        json.loads(contents[8 : 8 + length])


class PowerCutError(BaseException):
    """Nothing in the program handles it, so it ends a save as a crash would."""


@pytest.mark.parametrize("moment", range(1, 17))
def test_a_crash_at_any_moment_leaves_whole_checkpoints_only(tmp_path, monkeypatch, moment):
    """Dies at one flush, rename or removal of saving step 2 twice; step 1 and any step 2 must be whole."""
    save(tmp_path, 1, 2.0)
    calls = 0

    def die_in_time(original):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment:
                raise PowerCutError
            return original(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patched:
        for module, name in ((os, "fsync"), (os, "rename"), (shutil, "rmtree")):
            patched.setattr(module, name, die_in_time(getattr(module, name)))
        with pytest.raises(PowerCutError):
            save(tmp_path, 2, 1.0)
            save(tmp_path, 2, 1.0)
    for path in checkpoint_paths(tmp_path):
        load_checkpoint(path)
    assert 1 in steps(tmp_path)
    save(tmp_path, 3, 0.5)
    assert {1, 3} <= set(steps(tmp_path))
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_one_flipped_bit_anywhere_in_state_json_is_found(tmp_path):
    path, _, _ = save(tmp_path, 40, 1.5)
    state = path / "state.json"
    whole = state.read_bytes()
    for position in range(8 * len(whole)):
        contents = bytearray(whole)
        contents[position // 8] ^= 1 << position % 8
        state.write_bytes(bytes(contents))
        with pytest.raises(CheckpointError, match=r"damaged|foreign"):
            read_info(path)
    state.write_bytes(whole)
    assert load_checkpoint(path).step == 40


@pytest.mark.parametrize("version", [1, 2])
def test_checkpoints_from_before_the_hash_are_read(tmp_path, version):
    path, _, info = save(tmp_path, 3)
    state = json.loads((path / "state.json").read_text())
    del state["sha256"]
    (path / "state.json").write_text(json.dumps(state | {"version": version}, indent=1))
    assert {key: load_checkpoint(path).info[key] for key in info} == info


def without_hash(path, change):
    """Rewrites state.json as a version without a hash would have it."""
    state = json.loads((path / "state.json").read_text())
    del state["sha256"]
    state["version"] = 2
    change(state)
    (path / "state.json").write_text(json.dumps(state))


WRONG_TYPES = {
    "no scale": (lambda s: s.pop("latent_scale"), "lacks latent_scale"),
    "scale": (lambda s: s.update(latent_scale=None), "latent_scale: expected a valid number, got None"),
    "scale of 0": (lambda s: s.update(latent_scale=0), "latent_scale: expected greater than 0"),
    "scale as text": (lambda s: s.update(latent_scale="2"), "latent_scale: expected a valid number, got '2'"),
    "architecture": (lambda s: s["model"].pop("architecture"), "lacks model.architecture"),
    "files": (lambda s: s["files"].update({"ema.safetensors": []}), "files.ema.safetensors: expected"),
    "a file less": (lambda s: s["files"].pop("ema.safetensors"), "files: lacks ema.safetensors"),
    "size": (lambda s: s["files"]["ema.safetensors"].update(bytes="9"), "files.ema.safetensors.bytes: exp"),
    "hash": (lambda s: s["files"]["ema.safetensors"].update(sha256="0"), "files.ema.safetensors.sha256: "),
    "step": (lambda s: s.update(step=-1), "step: expected greater than or equal to 0, got -1"),
    "step is true": (lambda s: s.update(step=True), "step: expected a valid integer, got True"),
    "step is large": (lambda s: s.update(step=10**30), "step: expected less than or equal to 99999999"),
    "shape": (lambda s: s.update(sample_shape=[2.5]), "sample_shape.0: expected a valid integer"),
    "no shape": (lambda s: s.update(sample_shape=[]), "sample_shape: List should have at least 1 item"),
    "score": (lambda s: s.update(score=[1]), "score: expected a valid number"),
    "seconds": (lambda s: s.update(seconds="x"), "seconds: expected a valid number"),
    "scaler": (lambda s: s.update(scaler={"scale": "x"}), "scaler.scale"),
    "config": (lambda s: s.update(config=[]), "config: expected a valid dictionary"),
    "widths": (lambda s: s["model"]["options"].update(widths=5), "model: "),
    "large": (lambda s: s["model"]["options"].update(widths=[10**10] * 3), "model: "),
}


@pytest.mark.parametrize(("change", "message"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_fields_that_are_missing_or_of_another_type_are_damage(tmp_path, change, message):
    path, _, _ = save(tmp_path, 3)
    without_hash(path, change)
    with pytest.raises(CheckpointError, match=f"damaged: state.json.*{message}") as caught:
        load_checkpoint(path).build()
    assert len(str(caught.value).splitlines()) == 1


def as_pipe(file):
    file.unlink()
    os.mkfifo(file)


def as_zeros(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def as_hole(file):
    with file.open("r+b") as opened:
        opened.truncate(1 << 40)


@pytest.mark.parametrize("name", ["state.json", "ema.safetensors"])
@pytest.mark.parametrize("change", [as_pipe, as_zeros, as_hole])
def test_what_has_no_end_is_never_read(tmp_path, name, change):
    path, _, _ = save(tmp_path, 3)
    change(path / name)
    with pytest.raises(
        CheckpointError, match=f"damaged: {name} (cannot be read: not a regular|has 10995116277)"
    ):
        load_checkpoint(path)


def test_a_network_that_is_described_larger_takes_no_memory(tmp_path, monkeypatch):
    path, _, _ = save(tmp_path, 3)
    without_hash(path, lambda s: s["model"]["options"].update(widths=[10**6]))
    found = load_checkpoint(path)
    with (
        monkeypatch.context() as patched,
        pytest.raises(CheckpointError, match=r"expected shape .* by state\.json"),
    ):
        patched.setattr("naign_ext.checkpoint.build_model", None)
        found.build()


def test_what_kills_have_left_is_removed_and_nothing_else(tmp_path):
    save(tmp_path, 1)
    ours = [f".{kind}-step_00000009" for kind in ("writing", "replaced", "removing")]
    for name in (*ours, ".notes", ".removing-mine"):
        (tmp_path / "checkpoints" / name).mkdir()
    remove_later_checkpoints(tmp_path, 1)
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        "step_00000001",
        ".notes",
        ".removing-mine",
    }


def test_a_size_that_is_claimed_takes_no_memory(tmp_path):
    path, _, _ = save(tmp_path, 3)
    without_hash(path, lambda s: s["files"]["ema.safetensors"].update(bytes=2**31))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"damaged: ema.safetensors has \d+ bytes, expected 2147483648"):
        load_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
