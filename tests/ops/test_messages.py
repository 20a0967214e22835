"""What is said of tensors of unusual kinds: which argument it is, in every operator alike, and advice that works."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from naign_ext import ImleSearch, fused_loss, imle_knn

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
ODD = {
    "sparse": X.to_sparse(),
    "compressed rows": X.to_sparse_csr(),
    "mkldnn": X.to_mkldnn(),
    "nested": torch.nested.nested_tensor([X[:2], X[2:]]),
    "quantised": torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
    "complex": X.to(torch.complex64),
    "integers": X.int(),
    "bool": X > 0,
    "numpy": X.numpy(),
    "list": X.tolist(),
}
OPERATORS = {
    "imle_knn, data": ("data", lambda odd: imle_knn(odd, X)),
    "imle_knn, pool": ("pool", lambda odd: imle_knn(X, odd)),
    "search": ("data", ImleSearch),
    "update": ("pool", lambda odd: ImleSearch(X).update(odd)),
    "loss, data": ("data", lambda odd: fused_loss(odd, X)),
    "loss, reconstruction": ("reconstruction", lambda odd: fused_loss(X, odd)),
    "loss, matched": ("matched", lambda odd: fused_loss(X, X, odd)),
    "loss, term": (r"terms\[0\], prediction", lambda odd: fused_loss([(odd, X, 1.0)])),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_named_with_advice_that_works(operator, kind):
    name, call = OPERATORS[operator]
    if operator == "loss, data" and kind == "list":
        pytest.skip("a list is taken for terms")
    with pytest.raises(TypeError, match=rf"^{name}: expected ") as raised:
        call(ODD[kind])
    advice = str(raised.value).rpartition("; use ")[2]
    variable = re.search(r"\b(data|pool|reconstruction|matched|x)\b", advice)
    mended = eval(advice, {"torch": torch, variable[0]: ODD[kind]})
    if kind in ("complex", "nested"):
        assert mended.is_floating_point()
        assert mended.layout == torch.strided
    else:
        call(mended)


def test_a_search_under_vmap_is_refused_in_our_words():
    many = X.expand(2, -1, -1)
    with pytest.raises(
        TypeError, match=r"^pool: ImleSearch is not supported under torch\.func\.vmap; use imle_knn"
    ):
        vmap(lambda pool: ImleSearch(X).update(pool).neighbours().indices)(many)
    with pytest.raises(TypeError, match=r"^data: ImleSearch is not supported under torch\.func\.vmap"):
        vmap(grad(lambda data: ImleSearch(data).update(X).neighbours().distances.sum()))(many)

    def loss(samples: Tensor) -> Tensor:
        nearest = ImleSearch(X).update(samples.detach()).neighbours().indices[:, 0]
        return fused_loss(X, samples[nearest]).total

    leaf = X.flip(0).clone().requires_grad_()
    loss(leaf).backward()
    assert torch.equal(grad(loss)(X.flip(0)), leaf.grad)


def test_a_pickled_search_opens_in_a_process_of_another_instruction_set(tmp_path):
    torch.save(X, tmp_path / "pool.pt")
    (tmp_path / "search.pickle").write_bytes(pickle.dumps(ImleSearch(X.flip(0), 2).update(X)))
    code = """
import pickle, torch, naign_ext
found = pickle.load(open("search.pickle", "rb")).update(torch.load("pool.pt")).neighbours()
pickle.dump(tuple(found), open("found.pickle", "wb"))
print(naign_ext._native.status()["isa"])
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "NAIGN_ISA": "portable", "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.strip() == "portable"
    found = pickle.loads((tmp_path / "found.pickle").read_bytes())
    for one, other in zip(found, imle_knn(X.flip(0), torch.cat([X, X]), 2), strict=True):
        assert torch.equal(one, other)
