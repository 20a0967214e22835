"""`PYTHONPATH=tests python -m faults`: damage, odd arguments, kills and bad disks, and what came of them.

Exit code 1 where a fault came out; its files are kept, and the command that repeats it is shown.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

from faults import commands, disks, files, kills, operators, templates  # noqa: E402
from faults.verdicts import REFUSED, USED, FaultError, Verdict  # noqa: E402
from faults.workers import Ended, Kinds, Try, carry_out_all  # noqa: E402

KEPT = templates.ROOT / "build" / "faults"
SHARES = {"files": 0.62, "operators": 0.26, "commands": 0.12}
DISKS_OF_A_THOUSAND = 20
PROGRESS_SECONDS = 30


def shares(kinds: dict[str, int], count: int) -> dict[str, int]:
    """count divided among kinds by their weights, at least one each."""
    whole = sum(kinds.values())
    return {name: max(1, round(count * weight / whole)) for name, weight in kinds.items()}


def plan(count: int) -> dict[str, int]:
    """How many tries of each kind."""
    tries = shares(
        {name: weight for name, (weight, _) in files.FILES.items()}, round(count * SHARES["files"])
    )
    some = round(count * SHARES["operators"])
    tries |= shares({name: weight for name, (weight, *_) in operators.OPERATORS.items()}, some)
    return tries | {"command": max(1, round(count * SHARES["commands"]))}


class Told:
    """Counts what came of tries, and shows each fault as it comes."""

    def __init__(self, seed: int, kept: Path) -> None:
        self.seed, self.kept = seed, kept
        self.outcomes: dict[str, Counter[str]] = {}
        self.faults = 0

    def begin(self, tries: int, jobs: int) -> None:
        """Say what is to come: nothing is shown of tries that end well."""
        self.wanted, self.taken, self.since = tries, 0, time.monotonic()
        self.told = self.since
        print(
            f"{tries} tries in {jobs} processes; a fault is shown when it comes, with the files that show it and the "
            "command that repeats it",
            flush=True,
        )

    def tell_progress(self) -> None:
        """A line every half a minute."""
        self.taken += 1
        now = time.monotonic()
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            print(
                f"{self.taken} of {self.wanted} tries, {self.faults} faults, {now - self.since:.0f} s",
                flush=True,
            )

    def take(self, ended: Ended) -> None:
        counts = self.outcomes.setdefault(ended.tried.kind, Counter())
        counts[ended.verdict.outcome if not ended.verdict.is_fault else "fault"] += 1
        if ended.verdict.is_fault:
            self.show(ended)

    def show(self, ended: Ended) -> None:
        self.faults += 1
        name = f"{ended.tried.kind}-{ended.tried.number}".replace(" ", "-")
        target = self.kept / name
        shutil.rmtree(target, ignore_errors=True)
        if ended.folder.exists():
            self.kept.mkdir(parents=True, exist_ok=True)
            shutil.move(ended.folder, target)
        lines = [
            f"\nFAULT ({ended.verdict.outcome}) in {ended.tried.kind} {ended.tried.number}: {ended.words}"
        ]
        lines += ["  " + line for line in ended.verdict.text.splitlines()[:60]]
        lines += [f"  kept: {target}"]
        lines += [f"  again: make faults SEED={self.seed} ONLY='{ended.tried.kind}:{ended.tried.number}'"]
        print("\n".join(lines).encode("utf-8", "backslashreplace").decode(), flush=True)

    def summary(self) -> str:
        rows = [f"{'kind':<20}{'tried':>8}{'used':>8}{'refused':>9}{'faults':>8}"]
        for kind, counts in self.outcomes.items():
            row = (sum(counts.values()), counts[USED], counts[REFUSED], counts["fault"])
            rows.append(f"{kind:<20}{row[0]:>8}{row[1]:>8}{row[2]:>9}{row[3]:>8}")
        return "\n".join(rows)


def tries_of(seed: int, planned: dict[str, int], only: str | None) -> Iterator[Try]:
    """All tries, kind beside kind; or the one that is asked for."""
    if only is not None:
        kind, _, number = only.rpartition(":")
        yield Try(kind, seed, int(number))
        return
    every = [Try(kind, seed, number) for kind, count in planned.items() for number in range(count)]
    Random(seed).shuffle(every)
    yield from every


def kill_runs(seed: int, wanted: int, work: Path, told: Told, only: str | None) -> int:
    """Kills and resumes until so many kills have hit; how many have."""
    names, references = list(kills.RUNS), {}
    done = number = 0
    if only is not None:
        number, wanted = int(only.rpartition(":")[2]), 1
    while done < wanted:
        name = names[number % len(names)]
        if name not in references:
            references[name] = kills.uninterrupted(name, work / "uninterrupted")
        tried, folder = Try("kill", seed, number), work / f"kill-{number}"
        folder.mkdir()
        said: list[str] = [name]
        verdict = Verdict(USED)
        try:
            done += kills.kill_and_resume(
                tried.random(), folder, references[name], said.append, as_process=number % 25 == 24
            )
        except FaultError as fault:
            done += 1
            verdict = Verdict("lost", str(fault))
        told.take(Ended(tried, verdict, folder, "; ".join(said)))
        shutil.rmtree(folder, ignore_errors=True)
        number += 1
        if only is not None:
            break
    return done


def _count(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text!r}")
    return int(text)


def _at_least_one(text: str) -> int:
    return _count(text, 1)


def _one_try(text: str) -> str:
    if not text.rpartition(":")[2].isdecimal():
        raise argparse.ArgumentTypeError(f"expected KIND:NUMBER, as a fault's line shows it, got {text!r}")
    return text


def _arguments(line: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument(
        "--faults", type=_count, default=3000, help="tries with files, operators and commands"
    )
    parser.add_argument("--kills", type=_count, default=20, help="kills that hit a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jobs", type=_at_least_one, default=len(os.sched_getaffinity(0)), help="processes at a time"
    )
    parser.add_argument("--only", type=_one_try, help="KIND:NUMBER, one try again")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder for the files of faults")
    return parser.parse_args(line)


def main(line: Sequence[str] | None = None) -> int:
    """All that was asked for; the exit code."""
    asked = _arguments(line)
    began = time.monotonic()
    import torch

    torch.set_num_threads(1)
    told = Told(asked.seed, asked.kept)
    with tempfile.TemporaryDirectory(prefix="naign-faults-") as folder:
        work = Path(folder)
        os.environ |= {
            "NAIGN_CACHE": str(work / "cache"),
            "NAIGN_DATA": str(work / "data"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        made = templates.make(work / "templates")
        mounts = disks.can_mount()
        kinds: Kinds = files.kinds(made) | operators.kinds() | commands.kinds(made)
        planned = plan(asked.faults)
        expected = kills.uninterrupted("plain", work / "plain")
        of_disks = disks.kinds(made, expected, mounts=mounts)
        kinds |= of_disks
        if asked.only is not None and asked.only.rpartition(":")[0] not in (*kinds, "kill"):
            print(
                f"--only: expected KIND:NUMBER with one of {', '.join([*kinds, 'kill'])}, got {asked.only!r}"
            )
            return 2
        planned |= dict.fromkeys(of_disks, max(1, asked.faults * DISKS_OF_A_THOUSAND // 1000))
        if asked.only is None or not asked.only.startswith("kill:"):
            told.begin(1 if asked.only else sum(planned.values()), asked.jobs)
            for ended in carry_out_all(tries_of(asked.seed, planned, asked.only), kinds, work, asked.jobs):
                told.take(ended)
                told.tell_progress()
        killed = 0
        if asked.only is None or asked.only.startswith("kill:"):
            killed = kill_runs(asked.seed, asked.kills, work, told, asked.only)
    print(told.summary())
    print(
        f"disks: {'small ones, mounted' if mounts else 'limits of the size of files; read-only ones not tried'}"
    )
    tried = sum(sum(counts.values()) for counts in told.outcomes.values())
    print(
        f"{tried} tries, {killed} kills, {told.faults} faults, {time.monotonic() - began:.0f} s, seed {asked.seed}"
    )
    return 1 if told.faults else 0


if __name__ == "__main__":
    sys.exit(main())
