"""The README's own code does what it says, and is not wrong in silence where a row has no neighbour."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from naign_ext import fused_loss, imle_knn

PAGES = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (PAGES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
LATENTS = 3


def block(words: str) -> str:
    (found,) = [text for text in BLOCKS if words in text]
    return str(found)


class Generator(nn.Module):
    """A layer that remembers the latents it was given with gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(LATENTS, 4)
        self.seen: list[torch.Tensor] = []

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.seen.append(z)
        return self.layer(z)


def surroundings(x: torch.Tensor) -> dict[str, Any]:
    generator, f = Generator(), nn.Linear(4, 4)
    optimiser = torch.optim.SGD([*generator.parameters(), *f.parameters()], lr=0.01)
    names = {"loader": [x], "x": x, "latent_dim": LATENTS, "z": torch.randn(50, LATENTS)}
    return {**names, "generator": generator, "f": f, "optimiser": optimiser}


def test_the_loop_takes_the_latent_of_the_nearest_sample():
    x = torch.randn(6, 4)
    around = surroundings(x)
    before = Generator().layer
    exec(block("any IMLE loop"), around)
    nearest = torch.cdist(x, before(around["z"])).argmin(1)
    assert torch.equal(around["generator"].seen[0], around["z"][nearest])
    assert not torch.equal(around["generator"].layer.weight, before.weight)


@pytest.mark.parametrize("broken", ["data", "generator"])
def test_the_loop_raises_where_a_row_has_no_neighbour(broken):
    around = surroundings(torch.randn(6, 4))
    (around["x"] if broken == "data" else around["generator"].layer.weight.data)[3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"data: .* rows have"):
        exec(block("any IMLE loop"), around)
    assert not around["generator"].seen


def test_the_mask_leaves_out_rows_without_a_neighbour():
    x = torch.randn(6, 4)
    x[2] = torch.nan
    around = {**surroundings(x), "imle_knn": imle_knn, "fused_loss": fused_loss}
    exec(block("nearest.found"), around)
    assert around["kept"].tolist() == [True, True, False, True, True, True]
    assert len(around["generator"].seen[-1]) == 5
    assert around["loss"].isfinite()


@pytest.mark.parametrize("page", ["README.md", *sorted(p.name for p in (PAGES / "docs").glob("*.md"))])
def test_no_page_shows_a_search_that_may_answer_minus_one_in_silence(page):
    text = (PAGES / ("" if page == "README.md" else "docs") / page).read_text()
    for shown in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if re.search(r"indices\b.*=.*(imle_knn|neighbours)\(|indices\[", shown):
            assert 'missing="raise"' in shown or ".found" in shown
