"""Normal numbers in plain torch: the fallback, equal to the kernels to the last bit, and the float64 oracle.

The operations and their order are those of csrc/randn/arithmetic.inc, each one an operator of torch on
float32 or int64, so that nothing is fused.
"""

import math

import torch
from torch import Tensor

_COUNTERS_PER_BLOCK = 1 << 18
_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def _constants(*words: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in words)


_LOG = _constants("0x1.fffffap-1", "-0x1.5556f4p-1", "0x1.00049ap-1", "-0x1.98d2c0p-2", "0x1.535d2ep-2")
_LOG += _constants("-0x1.318526p-2", "0x1.2504a6p-2", "-0x1.65c780p-3")
_SINE = _constants("0x1.921fb6p+0", "-0x1.4abbbap-1", "0x1.465e92p-4", "-0x1.2d9308p-8")
_COSINE = _constants("1", "-0x1.3bd39cp+0", "0x1.03b09p-2", "-0x1.4e844ap-6")
_MINUS_TWO_LOG_2 = float.fromhex("-0x1.62e430p+0")
_LARGEST = 2.0**31 - 128


def philox(seed: int, counter: list[Tensor]) -> list[Tensor]:
    """Philox4x32-10 of four int64 tensors that hold 32-bit words, with a seed in [0, 2^64); four such tensors."""
    state = counter
    key = [seed & _WORD, seed >> 32 & _WORD]
    for _ in range(10):
        (even_high, even_low), (odd_high, odd_low) = (
            _product(state[2 * i], _MULTIPLIERS[i]) for i in range(2)
        )
        state = [odd_high ^ state[1] ^ key[0], odd_low, even_high ^ state[3] ^ key[1], even_low]
        key = [(part + step) & _WORD for part, step in zip(key, _KEY_STEPS, strict=True)]
    return state


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits; by halves, so that nothing exceeds 63 bits."""
    low = (word & 0xFFFF) * factor
    middle = (word >> 16) * factor + (low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | low & 0xFFFF


def uniform(word: Tensor) -> Tensor:
    """2^31 u = min(floor(word / 2) + 1/2, 2^31 - 128), float32, both terms and their sum rounded; word is int64."""
    return ((word >> 1).to(torch.float32) + 0.5).clamp(max=_LARGEST)


def minus_two_log(word: Tensor) -> Tensor:
    """-2 log u, float32."""
    bits = uniform(word).view(torch.int32)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).view(torch.float32) - 1.0
    return (exponent - 31).to(torch.float32) * _MINUS_TWO_LOG_2 + (f * f * _polynomial(f, _LOG) + f * -2.0)


def square_root(x: Tensor) -> Tensor:
    """The float32 nearest to sqrt(x).

    By way of float64, since torch's own may come from a library that rounds some of them otherwise. The square root of
    a float32 is further than 2^-51 of itself from where two float32 meet: an error in the last bit does not matter.
    """
    return x.double().sqrt().float()


def direction(word: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, float32, of the angle (quadrant + t) pi / 2: the word's upper 2 bits, and the signed rest."""
    rest = word << 2 & _WORD
    t = (rest - ((rest >> 31) << 32)).to(torch.float32) * 2.0**-32
    square = t * t
    sine, cosine = _polynomial(square, _SINE) * t, _polynomial(square, _COSINE)
    turned = (word >> 30 & 1) != 0
    x, y = torch.where(turned, sine, cosine), torch.where(turned, cosine, sine)
    lower_half = (word >> 31) != 0
    return torch.where(turned != lower_half, -x, x), torch.where(lower_half, -y, y)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    *others, last = coefficients
    result = torch.full_like(x, last)
    for coefficient in reversed(others):
        result = result * x + coefficient
    return result


def randn(out: Tensor, rows: Tensor | None, first: int, seed: int, scale: float) -> None:
    """Fills out (n, columns) with scale * z of rows int64 (n,), or of rows first, first + 1, ...."""
    columns = out.shape[1]
    step = max(1, _COUNTERS_PER_BLOCK // -(-columns // 4))
    for i in range(0, len(out), step):
        part = out[i : i + step]
        if rows is None:
            numbers = torch.arange(first + i, first + i + len(part), device=out.device)
        else:
            numbers = rows[i : i + step]
        z = _randn(seed, numbers, columns) * scale
        part.copy_(torch.where((numbers < 0)[:, None], torch.zeros_like(z), z))


def words(seed: int, rows: Tensor, columns: int) -> list[Tensor]:
    """The four words of each group of four columns, int64 (n, ceil(columns / 4)) each."""
    group = torch.arange(-(-columns // 4), device=rows.device).expand(len(rows), -1)
    low, high = ((rows >> shift & _WORD)[:, None].expand_as(group) for shift in (0, 32))
    return philox(seed, [low, high, group, torch.zeros_like(group)])


def _randn(seed: int, rows: Tensor, columns: int) -> Tensor:
    numbers = []
    a, b, c, d = words(seed, rows, columns)
    for radius, angle in ((a, b), (c, d)):
        length = square_root(minus_two_log(radius))
        numbers += [length * part for part in direction(angle)]
    return torch.stack(numbers, dim=-1).flatten(1)[:, :columns]


def randn_float64(seed: int, rows: Tensor, columns: int) -> Tensor:
    """The same numbers in float64, (n, columns): what the float32 ones are near to."""
    numbers = []
    a, b, c, d = words(seed, rows, columns)
    for radius, angle in ((a, b), (c, d)):
        u = uniform(radius).double() / 2.0**31
        rest = (angle & 0x3FFFFFFF) - ((angle >> 29 & 1) << 30)
        turn = ((angle >> 30) + rest.double() * 2.0**-30) * (math.pi / 2)
        length = (-2 * u.log()).sqrt()
        numbers += [length * turn.cos(), length * turn.sin()]
    return torch.stack(numbers, dim=-1).flatten(1)[:, :columns]
