"""Things that users choose by name; each is registered by a decorator in the file that defines it."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Named things of one kind, in the order in which they were registered.

    kind: what they are, for error texts, such as "objective".

    Example:
        OBJECTIVES: Registry[type[Objective]] = Registry("objective")

        @OBJECTIVES.register("naign")
        class Naign(Objective): ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that enters what it decorates under a name; ValueError where the name is taken."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind}: {name!r} is registered already, as {self._entries[name]!r}")
            self._entries[name] = entry
            return entry

        return enter

    def find(self, name: str) -> T:
        """What is registered under a name; ValueError, with the names there are, where nothing is."""
        if name in self:
            return self._entries[name]
        close = difflib.get_close_matches(str(name), self._entries, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{self.kind}: expected one of {', '.join(self._entries)}, got {name!r}{hint}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
