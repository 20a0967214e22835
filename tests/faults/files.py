"""Damaged files of every kind, each used as a user would."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

from faults import mutations, templates
from faults.verdicts import FaultError
from faults.workers import Kind, Kinds

Say = Callable[[str], None]
Mutate = Callable[[Random, bytes], bytes]
ODD_FILES = 0.06
"""Part of the tries in which the file becomes something else than a regular file."""


def damage(rng: Random, file: Path, mutate: Mutate, say: Say) -> bool:
    """Damages the file in place; False where it is by chance what it was."""
    if rng.random() < ODD_FILES:
        name = rng.choice(list(mutations.KINDS_OF_FILE))
        say(f"{file.name} is {name}")
        mutations.KINDS_OF_FILE[name](file)
        return True
    before = file.read_bytes()
    after = mutate(rng, before)
    file.write_bytes(after)
    say(f"{file.name}: {len(before)} to {len(after)} bytes by {mutate.__name__}")
    return before != after


def _copy(made: Path, name: str, folder: Path) -> Path:
    target = folder / name
    if (made / name).is_dir():
        shutil.copytree(made / name, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made / name, target)
    return target


def use_run(rng: Random, run: Path, say: Say) -> None:
    """One of the ways to use a run; it must end for any that can be read."""
    from naign_ext.run import Run

    opened = Run.open(run)
    use = rng.choice(["open", "resume", "resume", "sample", "report", "metrics", "commands"])
    say(use)
    if use == "open":
        assert len(opened.dataset.train) > 0
        opened.check_dataset()
    elif use == "resume":
        _resume(run)
    elif use == "sample":
        _use_projector(rng, run)
    elif use == "report":
        _report(rng, run)
    elif use == "metrics":
        opened.metrics()
    else:
        lines = [["score", run, run], ["sample", run, "-n", "2"], ["train", "--resume", run, "--no-report"]]
        _command(rng.choice(lines))


def _resume(run: Path) -> None:
    """One more update than there are; a configuration that is sound and asks for much would run for long."""
    from naign_ext.config import load_config
    from naign_ext.run import run_folder
    from naign_ext.training.trainer import resume

    config = load_config(run_folder(run) / "config.yaml")
    if config.batch_size > 10_000 or config.log.samples > 100:
        return
    resume(run, changes={"steps": 13})


def _report(rng: Random, run: Path) -> None:
    from naign_ext.report import write_report

    write_report(run, samples=8, metrics=["projection"], pictures=rng.random() < 0.05, device="cpu")


def _use_projector(rng: Random, folder: Path) -> None:
    import torch

    from naign_ext.projector import Projector

    projector = Projector.load(folder, "cpu", rng.choice(["ema", "model"]), rng.choice(["best", "last"]))
    samples = projector.sample(3)
    if samples.shape != (3, *projector.sample_shape):
        raise FaultError(f"samples of shape {tuple(samples.shape)}")
    projector.score(torch.zeros(projector.sample_shape))


def _command(arguments: list[object]) -> None:
    """A command in this process, judged as one."""
    from faults import commands

    commands.invoke([str(argument) for argument in arguments])


def _seal(state: Path, folder: Path) -> None:
    """Gives state.json the hashes of the files as they are, as whoever wants to deceive would."""
    info = json.loads(state.read_bytes())
    for name in info["files"]:
        contents = (folder / name).read_bytes()
        info["files"][name] = {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
    del info["sha256"]
    _write_sealed(state, json.dumps(info, indent=1).encode())


def _write_sealed(state: Path, contents: bytes) -> None:
    body = contents[:-2]
    state.write_bytes(body + b',\n "sha256": "%s"\n}' % hashlib.sha256(body).hexdigest().encode())


def _reseal(state: Path) -> None:
    contents = state.read_bytes()
    parts = re.split(rb',\n "sha256": "[0-9a-f]{64}"\n}$', contents)
    if len(parts) == 2:
        _write_sealed(state, parts[0] + b"\n}")


def configuration_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """config.yaml of a run, and files given to --config."""
    from naign_ext.config import resolve_config

    run = _copy(made, "run", folder)
    damage(rng, run / "config.yaml", mutations.mutate_yaml, say)
    if rng.random() < 0.3:
        say("--config")
        resolve_config(file=run / "config.yaml")
    else:
        use_run(rng, run, say)


def checkpoint_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Each file of a checkpoint: any change must be found by its hash."""
    from naign_ext.checkpoint import CheckpointError, load_checkpoint

    run = _copy(made, "run", folder)
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    file = rng.choice(sorted(checkpoint.iterdir()))
    mutate = mutations.mutate_json if file.suffix == ".json" else mutations.mutate_safetensors
    if not damage(rng, file, rng.choice([mutate, mutations.mutate_bytes]), say):
        return
    with suppress(CheckpointError):
        load_checkpoint(checkpoint)
        raise FaultError(f"{file.name} is changed and was read")
    use_run(rng, run, say)


def forged_checkpoint(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Files of a checkpoint changed by someone who also writes the hashes anew."""
    run = _copy(made, "run", folder)
    # The only one, so that it is used.
    *others, checkpoint = sorted((run / "checkpoints").iterdir())
    for other in others:
        shutil.rmtree(other)
    file = rng.choice(sorted(checkpoint.iterdir()))
    if file.suffix == ".json":
        before = json.loads(file.read_bytes())
        del before["sha256"]
        _write_sealed(file, mutations.json_text(mutations.mutate_tree(rng, before)))
    else:
        damage(rng, file, mutations.mutate_safetensors, say)
        if file.is_file() and file.stat().st_size < 1 << 30:
            _seal(checkpoint / "state.json", checkpoint)
    say(f"{file.name} sealed anew")
    use_run(rng, run, say)


def metrics_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """metrics.jsonl of a run."""
    run = _copy(made, "run", folder)
    damage(rng, run / "metrics.jsonl", mutations.mutate_lines, say)
    use_run(rng, run, say)


def pretrained_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """config.json and model.safetensors of save_pretrained."""
    target = _copy(made, rng.choice(["run-pretrained", "image-run-pretrained"]), folder)
    name = rng.choice(["config.json", "model.safetensors"])
    mutate = mutations.mutate_json if name == "config.json" else mutations.mutate_safetensors
    damage(rng, target / name, mutate, say)
    _use_projector(rng, target)


def image_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Images of every format, alone, in a folder and as a data set."""
    from naign_ext.data import load_dataset, read_image, read_image_folder

    target = _copy(made, templates.IMAGES, folder)
    for file in (made / "other-images").iterdir():
        shutil.copy(file, target)
    file = rng.choice(sorted(target.iterdir()))
    damage(rng, file, mutations.mutate_bytes, say)
    size, channels = rng.choice([None, 1, 8, (3, 5)]), rng.choice([None, 1, 3])
    use = rng.choice(["file", "file", "folder", "dataset", "restore"])
    say(use)
    if use == "file":
        _check_pixels(read_image(file, image_size=size, channels=channels))
    elif use == "folder":
        _check_pixels(read_image_folder(target, image_size=8, channels=channels)[0])
    elif use == "dataset":
        _check_pixels(load_dataset(f"folder:{target}", image_size=8).train)
    else:
        _command(["restore", made / "image-run-pretrained", file, target, "--out", folder / "out"])


def _check_pixels(images) -> None:
    if not (images.isfinite().all() and images.abs().max() <= 1):
        raise FaultError("pixels beyond [-1, 1]")


def archive_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Archives of images, zip and tar, packed or not."""
    from naign_ext.data import load_dataset

    names = sorted(file.name for file in (made / "archives").iterdir())
    file = _copy(made, f"archives/{rng.choice(names)}", folder)
    damage(rng, file, mutations.mutate_bytes, say)
    _check_pixels(load_dataset(f"folder:{file}", image_size=8).train)


def array_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """The .npy file of the faces."""
    from naign_ext.data import lfw, load_dataset

    file = _copy(made, "lfw.npy", folder)
    damage(rng, file, mutations.mutate_bytes, say)
    with patch.object(lfw, "_find_file", lambda: file):
        load_dataset("lfw100")


def bench_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Results of benchmarks, read to be drawn and compared."""
    target = _copy(made, "benched", folder)
    name = rng.choice(sorted(file.name for file in target.iterdir()))
    damage(rng, target / name, mutations.mutate_json, say)
    if name == "train-processes-cpu.json" or rng.random() < 0.2:
        _command(["bench", "cost", target / name])
    else:
        _command(["bench", "plot", target / name, folder / f"picture.{rng.choice(['png', 'svg'])}"])


def reproduced_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """Results of reproductions, from which the page is written."""
    target = _copy(made, "reproduced", folder)
    name = rng.choice(sorted(file.name for file in target.iterdir()))
    damage(rng, target / name, mutations.mutate_json, say)
    _command(["reproduce", "report", "--results", target])


def job_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """What a reproduction keeps of its runs."""
    from naign_ext.reproduce import runs

    target = _copy(made, "jobs", folder)
    kept = sorted(file for file in next(target.iterdir()).iterdir() if file.suffix in (".json", ".jsonl"))
    file = rng.choice(kept)
    mutate = mutations.mutate_lines if file.suffix == ".jsonl" else mutations.mutate_json
    damage(rng, file, mutate, say)
    runs.carry_out(templates.job(), target)


def list_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """The list of what an earlier call wrote."""
    from naign_cli.written import LIST

    target = folder / "out"
    sample = ["sample", made / "run-pretrained", "-n", "2", "--out", target]
    _command(sample)
    damage(rng, target / LIST, mutations.mutate_json, say)
    _command(sample)


def classifier_file(made: Path, rng: Random, folder: Path, say: Say) -> None:
    """A kept classifier: one that cannot be used is trained anew."""
    import torch

    from naign_ext.evaluation import classifier

    file = _copy(made, "classifier.safetensors", folder)
    damage(rng, file, mutations.mutate_safetensors, say)
    found = classifier._read(file, (1, 8, 8), 3)
    if found is not None and not found.features(torch.zeros(2, 1, 8, 8)).isfinite().all():
        raise FaultError("features that are not finite")


FILES: dict[str, tuple[int, Callable[[Path, Random, Path, Say], None]]] = {
    "config.yaml": (16, configuration_file),
    "checkpoint": (14, checkpoint_file),
    "forged-checkpoint": (16, forged_checkpoint),
    "metrics.jsonl": (12, metrics_file),
    "pretrained": (12, pretrained_file),
    "image": (14, image_file),
    "archive": (10, archive_file),
    "array": (2, array_file),
    "bench-results": (4, bench_file),
    "reproduced": (6, reproduced_file),
    "reproduction-run": (5, job_file),
    "written-list": (3, list_file),
    "classifier": (3, classifier_file),
}
"""By kind: how many of a hundred or so tries, and the try."""


def kinds(made: Path) -> Kinds:
    """The kinds of damaged files; made: the templates."""
    return {name: Kind(partial(_try, do, made)) for name, (_, do) in FILES.items()}


def _try(
    do: Callable[[Path, Random, Path, Say], None], made: Path, rng: Random, folder: Path, say: Say
) -> None:
    do(made, rng, folder, say)
