"""Errors of commands: one text and an exit code, or their traceback where they are bugs."""

import errno

import pytest
import typer
from naign_cli.guard import MISTAKE, guarded
from naign_cli.startup import FAILED


def stopped(error):
    @guarded
    def command():
        raise error

    with pytest.raises(typer.Exit) as caught:
        command()
    return caught.value.exit_code


CPU_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("steps: expected 1"), MISTAKE, "error: steps: expected 1\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), MISTAKE, "error: a.png: No such file\n"),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            MISTAKE,
            "error: [Errno 13] Permission denied\n",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "aaa"),
            MISTAKE,
            "error: aaa: File name too long\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), FAILED, "No space left on device\n"),
        (MemoryError("Unable to allocate 3 TiB"), FAILED, "error: out of memory: Unable to allocate 3 TiB\n"),
        (RuntimeError(CPU_MEMORY), FAILED, "error: out of memory: can't allocate memory\n"),
        (
            RuntimeError("CUDA out of memory.\nTried"),
            FAILED,
            "error: out of memory: CUDA out of memory. Tried\n",
        ),
        (MemoryError(), FAILED, "error: out of memory\n"),
        (MemoryError("memory: it takes 3 TB"), FAILED, "error: memory: it takes 3 TB\n"),
        (KeyboardInterrupt(), FAILED, "error: interrupted\n"),
        (ModuleNotFoundError("No module named 'PIL'", name="PIL"), FAILED, "pip install 'naign[train]'\n"),
    ],
    ids=repr,
)
def test_foreseen_errors_are_a_text_and_a_code(error, code, text, capsys, monkeypatch):
    monkeypatch.delenv("NAIGN_DEBUG", raising=False)
    assert stopped(error) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith(text)
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a bug"),
        TypeError("a bug"),
        ModuleNotFoundError("No module named 'naign_ext.nope'", name="naign_ext.nope"),
    ],
    ids=repr,
)
def test_bugs_keep_their_traceback(error):
    @guarded
    def command():
        raise error

    with pytest.raises(type(error)):
        command()
