"""Seeds of everything drawn, derived from a run's seed and a name: nothing depends on what was drawn before."""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) for the given parts, the same on every machine and in every process.

    Streams with different names or steps are independent, so any moment of a run can be repeated from
    ``(seed, name, step)`` alone::

        derive_seed(config.seed, "noise", step)
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def data_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for what data sets and corruptions draw: different names give independent streams of a seed.

    It derives its seed otherwise than :func:`generator`, by SHA-256 of the names: that defines the points, splits and
    corruptions that runs, results and published figures were made with. Draw anything else from :func:`generator`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(
            f"seed: expected an int, got {type(seed).__name__} ({seed!r}); pass for example seed=0"
        )
    text = "/".join(str(part) for part in (seed, *names))
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(value)
