"""The tool that makes faults finds those that are planted, and finds them again."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

import naign_ext
from faults import __main__ as tool
from faults import commands, disks, files, kills, mutations, operators, templates
from faults.verdicts import REFUSED, USED, FaultError, judge
from faults.workers import Kind, Try, carry_out, carry_out_all
from naign_ext import checkpoint, metrics_log
from naign_ext.training import trainer

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return templates.make(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return kills.uninterrupted("plain", tmp_path_factory.mktemp("plain"))


def found(kinds, name, tries, folder):
    """The first try that ends in a fault, which must come out again."""
    for number in range(tries):
        ended = carry_out(Try(name, 0, number), kinds[name], folder)
        if ended.verdict.is_fault:
            again = carry_out(Try(name, 0, number), kinds[name], folder)
            assert (again.verdict.outcome, again.words) == (ended.verdict.outcome, ended.words)
            return ended
    return None


@pytest.mark.slow
def test_nothing_comes_out_where_nothing_is_planted(made, tmp_path):
    kinds = files.kinds(made) | operators.kinds() | commands.kinds(made)
    outcomes = set()
    for name in kinds:
        ended = carry_out(Try(name, 1, 0), kinds[name], tmp_path / "try")
        assert not ended.verdict.is_fault, ended
        outcomes.add(ended.verdict.outcome)
    assert outcomes == {USED, REFUSED}


def without_hash(file, info):
    """Tensors of a file, whatever it holds."""
    try:
        return checkpoint.load_tensors(file.read_bytes())
    except (OSError, checkpoint.SafetensorError):
        return {}


def test_damage_that_is_taken_for_good_is_found(made, tmp_path, monkeypatch):
    kinds = files.kinds(made)
    assert found(kinds, "checkpoint", 10, tmp_path / "try") is None
    monkeypatch.setattr(checkpoint, "_read_tensors", without_hash)
    ended = found(kinds, "checkpoint", 40, tmp_path / "try")
    assert ended.verdict.outcome == "silent" and "is changed and was read" in ended.verdict.text


def test_an_exception_that_is_not_ours_is_found(made, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_log, "checked", lambda schema, value: value["kind"])
    ended = found(files.kinds(made), "metrics.jsonl", 40, tmp_path / "try")
    assert ended.verdict.outcome == "exception" and "Traceback" in ended.verdict.text


def test_wrong_answers_of_operators_are_found(tmp_path, monkeypatch):
    kinds = operators.kinds()
    search, loss = naign_ext.imle_knn, naign_ext.fused_loss

    def second(data, pool, k=1, **options):
        answer = search(data, pool, k, **options)
        return answer._replace(indices=(answer.indices + 1) % pool.shape[-2])

    def scaled(*args, **options):
        answer = loss(*args, **options)
        return answer._replace(total=answer.total * 1.01)

    monkeypatch.setattr(naign_ext, "imle_knn", second)
    monkeypatch.setattr(naign_ext, "fused_loss", scaled)
    for name in ("imle_knn", "fused_loss"):
        assert found(kinds, name, 30, tmp_path / "try").verdict.outcome == "silent"


def test_an_error_that_names_no_argument_is_found(tmp_path, monkeypatch):
    module = {"__name__": "naign_ext.vague"}
    exec("def vague(*_, **__):\n    raise ValueError('something is wrong')", module)
    monkeypatch.setattr(naign_ext, "imle_knn", module["vague"])
    ended = carry_out(Try("imle_knn", 0, 0), operators.kinds()["imle_knn"], tmp_path / "try")
    assert ended.verdict.outcome == "unclear"


@pytest.mark.parametrize(
    ("code", "errors", "wrong"),
    [
        (3, "error: x", "exit code 3"),
        (1, "Traceback (most recent call last):\n  ...\nerror: x", "a traceback"),
        (0, "Traceback (most recent call last):\n  ...", "a traceback"),
        (2, "", "without a word"),
        (1, "error: " + "line\n" * 30, "an error of 30 lines"),
        (2, "error: <class 'int'>", "words of the program"),
    ],
)
def test_what_a_command_must_not_say_is_found(code, errors, wrong):
    with pytest.raises(FaultError, match=wrong):
        commands.check(code, errors)


def test_commands_that_fail_otherwise_are_found(made, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr("naign_ext.data.describe_datasets", broken)
    ended = found(commands.kinds(made), "command", 120, tmp_path / "try")
    assert ended.verdict.outcome == "exception" and "broken" in ended.verdict.text and "'data'" in ended.words


def hang(rng, folder, say):
    time.sleep(60)


def crash(rng, folder, say):
    os.kill(os.getpid(), signal.SIGKILL)


def take_memory(rng, folder, say):
    bytearray(16 << 30)


def do_well(rng, folder, say):
    say(str(rng.random()))


def test_hangs_crashes_and_memory_end_one_try_alone(tmp_path):
    kinds = {
        "hang": Kind(hang, seconds=0.5),
        "crash": Kind(crash),
        "memory": Kind(take_memory),
        "well": Kind(do_well),
    }
    tries = [Try(name, 0, number) for number in range(2) for name in kinds]
    ended = list(carry_out_all(tries, kinds, tmp_path, jobs=2))
    assert len(ended) == 8
    assert {(e.tried.kind, e.verdict.outcome) for e in ended} == {
        ("hang", "hang"),
        ("crash", "crash"),
        ("memory", "memory"),
        ("well", USED),
    }
    assert {e.words for e in ended if e.tried.kind == "well"} == {
        str(Try("well", 0, n).random().random()) for n in range(2)
    }


@pytest.mark.slow
def test_a_run_that_goes_on_to_other_bits_is_found(tmp_path, expected, monkeypatch):
    restore = trainer.restore

    def forgetful(state, found):
        restore(state, found)
        for moments in state.optimiser.state.values():
            moments["exp_avg"].zero_()

    def lost():
        for number in range(4):
            folder = tmp_path / str(number)
            folder.mkdir()
            try:
                kills.kill_and_resume(Try("kill", 0, number).random(), folder, expected, [].append)
            except FaultError as fault:
                return str(fault)
        return ""

    assert lost() == ""
    monkeypatch.setattr(trainer, "restore", forgetful)
    for folder in tmp_path.iterdir():
        folder.rename(folder.with_name(f"earlier-{folder.name}"))
    assert "is another than without the kills" in lost()


def test_a_run_that_does_not_go_on_is_found(tmp_path, expected, monkeypatch):
    def broken(*_):
        raise KeyError("state")

    monkeypatch.setattr(trainer, "restore", broken)
    kills._in_child(lambda: kills._train((*expected.settings, "steps=20"), tmp_path / "run"), None)
    with pytest.raises(FaultError, match="does not go on: KeyError: 'state'"):
        kills._in_child(lambda: kills._train(expected.settings, tmp_path / "run"), None, tmp_path / "error")


def test_a_full_disk_that_costs_the_run_is_found(made, tmp_path, expected, monkeypatch):
    kind = {"full disk": Kind(lambda rng, folder, say: disks.short_files(made, expected, rng, folder, say))}
    assert found(kind, "full disk", 4, tmp_path / "try") is None

    def careless(path, contents):
        path.write_bytes(contents[:3000])

    monkeypatch.setattr(checkpoint, "_write_durably", careless)
    ended = found(kind, "full disk", 12, tmp_path / "try")
    assert ended.verdict.outcome == "silent" and "does not go on" in ended.verdict.text


def raised(error):
    try:
        raise error
    except Exception as caught:
        return caught


def test_what_a_try_writes_by_a_relative_name_stays_in_its_folder(tmp_path):
    kinds = {"plain": Kind(lambda rng, folder, say: Path("~nobody").touch())}
    before = Path.cwd()
    assert carry_out(Try("plain", 0, 0), kinds["plain"], tmp_path / "try").verdict.outcome == USED
    assert (tmp_path / "try" / "~nobody").is_file()
    assert Path.cwd() == before


@pytest.mark.parametrize(
    "line", [["--faults", "-1"], ["--jobs", "0"], ["--only", "command"], ["--kills", "x"]]
)
def test_odd_orders_are_refused_before_anything_is_made(line, capsys):
    with pytest.raises(SystemExit, match="2"):
        tool.main(line)
    assert f"argument {line[0]}: expected" in capsys.readouterr().err


def test_only_errors_that_naign_raises_count_as_refusals():
    assert judge(raised(ValueError("x"))).outcome == "exception"
    assert judge(raised(KeyError("x"))).outcome == "exception"
    assert judge(raised(MemoryError())).outcome == "memory"
    assert judge(raised(RuntimeError("DefaultCPUAllocator: can't allocate"))).outcome == "memory"
    assert judge(raised(OSError(28, "No space left on device"))).outcome == REFUSED
    with pytest.raises(ValueError) as caught:
        naign_ext.imle_knn(torch.zeros(2, 3), torch.zeros(2, 4))
    assert judge(caught.value, ("pool",)).outcome == REFUSED
    assert judge(caught.value, ("data",)).outcome == "unclear"
    with pytest.raises(ValueError) as caught:
        int("x")
    assert judge(caught.value).outcome == "exception"


def test_mutations_follow_from_the_seed_and_change_something(made):
    run = made / "run"
    state = next((run / "checkpoints").iterdir())
    table = [
        (mutations.mutate_yaml, run / "config.yaml"),
        (mutations.mutate_json, state / "state.json"),
        (mutations.mutate_lines, run / "metrics.jsonl"),
        (mutations.mutate_safetensors, state / "ema.safetensors"),
        (mutations.mutate_bytes, made / templates.IMAGES / "png0.png"),
    ]
    for mutate, file in table:
        before = file.read_bytes()
        mutated = [mutate(Try("x", 0, number).random(), before) for number in range(60)]
        assert mutated == [mutate(Try("x", 0, number).random(), before) for number in range(60)]
        assert len(set(mutated)) > 35 and sum(after != before for after in mutated) > 45


@pytest.mark.slow
def test_the_command_ends_with_1_and_a_way_to_repeat_what_it_found(made, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_read_tensors", without_hash)
        number = found(files.kinds(made), "checkpoint", 40, tmp_path / "try").tried.number
        only = f"checkpoint:{number}"
        line = ["--faults", "1", "--kills", "1", "--jobs", "1", "--kept", str(tmp_path), "--only", only]
        assert tool.main(line) == 1
    printed = capsys.readouterr().out
    assert f"again: make faults SEED=0 ONLY='{only}'" in printed and "1 tries, 0 kills, 1 faults" in printed
    assert (tmp_path / f"checkpoint-{number}" / "run" / "config.yaml").is_file()
    assert tool.main(line) == 0
