"""Damage: of bytes, of the structure of JSON and YAML, of safetensors' headers, and of what kind of file it is."""

import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml

_HUGE = "@huge number@"
"""Stands for a number of more digits than Python reads."""


def odd_value(rng: Random) -> Any:
    """A value that no field expects, or that is of a type near the right one."""
    return rng.choice(
        [
            None,
            True,
            False,
            -1,
            0,
            1,
            2**31,
            2**63,
            -(2**63) - 1,
            10**12,
            10**400,
            _HUGE,
            0.5,
            -0.0,
            1e-320,
            1e308,
            float("nan"),
            float("inf"),
            float("-inf"),
            "",
            "x",
            "0",
            "1e400",
            "a\x00b\x1b[31m",
            "\ud800",
            "../../etc/passwd",
            "x" * 100_000,
            [],
            {},
            [[]],
            [None],
            [1, "a", None],
            list(range(5000)),
            {"a": 1},
            {"": None},
            _nested(rng.choice([5, 200, 3000])),
        ]
    )


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def mutate_tree(rng: Random, tree: Any) -> Any:
    """A copy of plain values with one to three changes: another value, a field lost, added, renamed or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        tree = _mutate_once(rng, tree)
    return tree


def _mutate_once(rng: Random, tree: Any) -> Any:
    places = list(_places(tree))
    if not places or rng.random() < 0.03:
        return odd_value(rng)
    holder, key = rng.choice(places)
    what = rng.randrange(6)
    if what <= 2:
        holder[key] = odd_value(rng)
    elif what == 3:
        del holder[key]
    elif what == 4:
        holder[key] = _near(rng, holder[key])
    elif isinstance(holder, dict):
        holder[rng.choice(["unknown", "", "__class__", str(key) + "_", "0"])] = odd_value(rng)
    else:
        holder.insert(key, holder[key])
    return tree


def _near(rng: Random, value: Any) -> Any:
    """A value that could stand there and does not."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        # An int may be larger than any float.
        as_float = float(value) if abs(value) < 2**1000 else math.inf
        return rng.choice([value + 1, value - 1, -value, value * 1000, as_float, str(value)])
    if isinstance(value, float):
        return rng.choice([-value, value * 1e30, value * 1e-30, str(value), 0.0])
    if isinstance(value, str):
        return rng.choice([value[:-1], value + "x", value.upper(), [value]])
    if isinstance(value, list):
        return rng.choice([value[:-1], value * 2, value[::-1], {str(i): v for i, v in enumerate(value)}])
    if isinstance(value, dict):
        return rng.choice([list(value), list(value.values()), dict.fromkeys(value)])
    return 0


def _places(tree: Any, most: int = 4000) -> list[tuple[Any, Any]]:
    """All (holder, key) in plain values."""
    found: list[tuple[Any, Any]] = []
    holders = [tree]
    while holders and len(found) < most:
        holder = holders.pop()
        keys = (
            list(holder)
            if isinstance(holder, dict)
            else range(len(holder))
            if isinstance(holder, list)
            else ()
        )
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                holders.append(holder[key])
    return found


def json_text(value: Any) -> bytes:
    """JSON as Python writes it, with NaN where there is one."""
    text = _dumped(value)
    return text.replace(json.dumps(_HUGE), "9" * 6000).encode("ascii")


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, indent=1)
    except RecursionError:
        return "[" * 100_000


def mutate_json(rng: Random, contents: bytes) -> bytes:
    """Damage to a JSON file: of its structure, its text or its bytes."""
    what = rng.random()
    if what < 0.65:
        return json_text(mutate_tree(rng, json.loads(contents)))
    if what < 0.8:
        text = contents.decode()
        return rng.choice(
            [
                "[" * 200_000,
                '{"a":' * 100_000 + "1" + "}" * 100_000,
                text + text,
                "\ufeff" + text,
                text.replace(":", ": [", 1),
                '{"a": 1, ' + text.lstrip()[1:],
                "null",
                "[]",
                "{}",
                '"' + "x" * 3_000_000 + '"',
                "1" * 100_000,
                text.replace('"', "'"),
            ]
        ).encode()
    return mutate_bytes(rng, contents)


_YAML = (
    "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    "model: {widths: [*f,*f,*f,*f,*f,*f,*f,*f,*f]}\n",
    "model: &a\n  widths: *a\n",
    "model: &a {b: *a}\n",
    "steps: !!python/object/apply:os.system ['true']\n",
    "steps: !!python/name:os.system\n",
    "seed: 2001-02-30\n",
    "seed: !!timestamp 2001-99-99\n",
    "seed: !!binary '%%%'\n",
    "seed: !!float abc\n",
    "seed: !!int abc\n",
    "seed: 1:99:99\n",
    "<<: [1, 2]\n",
    "<<: *nothing\n",
    "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n",
    "steps: 1\nsteps: 2\n",
    "- " * 3000,
    "[" * 5000,
    "{a: " * 3000,
    "\tsteps: 1\n",
    "%YAML 9.9\n---\nsteps: 1\n",
    "--- 1\n--- 2\n",
    "steps: 0x" + "f" * 5000,
    "steps: " + "9" * 6000,
    "seed: .inf\n",
    "seed: .nan\n",
    "1: 2\n",
    "null: 2\n",
    "2001-01-01: 2\n",
    "model: !!set {a, b}\n",
    "model: !!omap [a: 1]\n",
    "model: !!pairs [a: 1]\n",
    "x" * 2_000_000,
    "a: " + "[1, " * 400 + "1" + "]" * 400,
    "".join(f"k{i}: {{a: [1, 2, 3]}}\n" for i in range(60_000)),
    "\x00",
    "a: \ud800".encode("utf-8", "surrogatepass").decode("latin1"),
)


def mutate_yaml(rng: Random, contents: bytes) -> bytes:
    """Damage to a YAML file: of its structure, its text or its bytes."""
    what = rng.random()
    if what < 0.65:
        tree = mutate_tree(rng, yaml.safe_load(contents))
        try:
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=False)
        except (RecursionError, yaml.YAMLError, UnicodeError):
            text = json_text(tree).decode()
        return text.replace(_HUGE, "9" * 6000).encode("utf-8", "surrogatepass")
    if what < 0.8:
        odd = rng.choice(_YAML)
        whole = contents.decode()
        return (odd + whole if rng.random() < 0.3 else odd).encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, contents)


def mutate_lines(rng: Random, contents: bytes) -> bytes:
    """Damage to a file of one JSON object a line."""
    lines = contents.splitlines(keepends=True)
    where = rng.randrange(len(lines))
    what = rng.random()
    if what < 0.6:
        changed = json_text(mutate_tree(rng, json.loads(lines[where])))
        lines[where] = changed.replace(b"\n", b"") + b"\n"
    elif what < 0.75:
        odd = [
            b"\n",
            b"null\n",
            b"[]\n",
            b"1\n",
            b"{}\n",
            b'{"kind": "train"}\n',
            b'{"step": 1}\n',
            b"\x00" * 512,
        ]
        odd += [b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"kind": "' + b"x" * 3_000_000 + b'", "step": 1}\n']
        lines.insert(where, rng.choice(odd))
    elif what < 0.85:
        lines.insert(where, rng.choice(lines))
    else:
        return mutate_bytes(rng, contents)
    return b"".join(lines)


def mutate_safetensors(rng: Random, contents: bytes) -> bytes:
    """Damage to a safetensors file: of its header, of its length, of the numbers, or of any bytes."""
    length = int.from_bytes(contents[:8], "little")
    header, numbers = json.loads(contents[8 : 8 + length]), bytearray(contents[8 + length :])
    what = rng.random()
    if what < 0.4:
        text = json_text(mutate_tree(rng, header))
        return len(text).to_bytes(8, "little") + text + bytes(numbers)
    if what < 0.5:
        size = rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, rng.randrange(2**40)])
        return size.to_bytes(8, "little") + contents[8:]
    if what < 0.7 and numbers:
        start = rng.randrange(max(1, len(numbers) - 8))
        odd = rng.choice(
            [b"\xff" * 8, b"\x00\x00\xc0\x7f" * 2, b"\x00\x00\x80\x7f" * 2, b"\xff\xff\x7f\x7f" * 2]
        )
        numbers[start : start + 8] = odd[: len(numbers) - start]
        return contents[: 8 + length] + bytes(numbers)
    return mutate_bytes(rng, contents)


def mutate_bytes(rng: Random, contents: bytes) -> bytes:
    """One to three changes of bits, bytes, pieces or length."""
    changed = bytearray(contents)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        _change(rng, changed)
    return bytes(changed)


def _change(rng: Random, contents: bytearray) -> None:
    size = len(contents)
    where = rng.randrange(size) if size else 0
    # Headers are short and hold most of what can go wrong.
    if size > 64 and rng.random() < 0.4:
        where = rng.randrange(64)
    length = min(size - where, rng.choice([1, 2, 4, 8, 64, 1024]))
    what = rng.randrange(9)
    if what <= 1 and size:
        contents[where] ^= 1 << rng.randrange(8)
    elif what == 2 and size:
        contents[where] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif what == 3:
        del contents[where:]
    elif what == 4:
        contents[where:where] = rng.randbytes(rng.choice([1, 4, 100, 5000]))
    elif what == 5:
        del contents[where : where + length]
    elif what == 6:
        contents[where:where] = contents[where : where + length]
    elif what == 7:
        contents[where : where + length] = rng.choice([b"\x00", b"\xff"]) * length
    else:
        contents += rng.choice([b"\x00", b"x", bytes(10_000), bytes(contents)])


def _as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _as_link(target: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return change


def _as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _as_hole(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(1 << 40)


def _as_nothing(file: Path) -> None:
    file.unlink()


def _as_empty(file: Path) -> None:
    file.write_bytes(b"")


KINDS_OF_FILE: dict[str, Callable[[Path], None]] = {
    "a folder": _as_folder,
    "a link to /dev/zero": _as_link("/dev/zero"),
    "a link to /dev/null": _as_link("/dev/null"),
    "a link to nothing": _as_link("nothing"),
    "a link to itself": _as_link("."),
    "a pipe": _as_pipe,
    "a hole of 1 TiB": _as_hole,
    "missing": _as_nothing,
    "empty": _as_empty,
}
