"""What is said of files that a data set does without."""

import logging
from collections import Counter
from collections.abc import Sequence

log = logging.getLogger("naign_ext.data")


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first items, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def reasons_text(files: Sequence[tuple[str, str]]) -> str:
    """Files by name, each with what is wrong with it."""
    return listed([f"{printable(name)} ({reason})" for name, reason in files])


def count_reasons(files: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How many files each reason has, by reason."""
    return dict(sorted(Counter(reason for _, reason in files).items()))


def printable(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes of a name that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def warn_of_skipped(
    label: str, damaged: Sequence[tuple[str, str]], left_out: Sequence[tuple[str, str]]
) -> None:
    """Name in the log the images that cannot be read, and what may hold images and is not looked into."""
    if damaged:
        log.warning(
            "%s: %d damaged images skipped: %s", printable(label), len(damaged), reasons_text(damaged)
        )
    if left_out:
        log.warning("%s: %d files left out: %s", printable(label), len(left_out), reasons_text(left_out))
