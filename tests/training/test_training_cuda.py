"""Training on a GPU: the streams of generation and search, precisions and layouts, resuming bit for bit, use of f."""

from pathlib import Path

import pytest
import torch

from naign_ext import ImleSearch
from naign_ext.checkpoint import checkpoint_paths, load_checkpoint
from naign_ext.config import TrainConfig, resolve_config
from naign_ext.latents import LatentPool
from naign_ext.metrics_log import read_metrics
from naign_ext.models import build_model
from naign_ext.objectives import NaignOptions, StepContext
from naign_ext.objectives.generation import sample_in_evaluation
from naign_ext.objectives.matchers import build_matcher
from naign_ext.projector import Projector
from naign_ext.training.trainer import resume, train
from naign_ext.transforms.batch import Batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("built_with_cuda"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),
]

STEPS = 24
SMALL = (
    f"steps={STEPS}",
    "batch_size=16",
    "objective.pool_size=300",
    "log.every=4",
    "log.samples_every=12",
    "log.checkpoint_every=12",
    "log.tensorboard=false",
    "device=cuda",
)
TOY = ("model.widths=[24, 24]",)
FACES = ("model.widths=[32, 16, 32]", "objective.resample_every=5")
CONVOLUTIONS = ("model.architecture=conv", "model.base_channels=8", "model.latent_dim=16", *FACES[1:])
KINDS = {"toy": ("8gaussians", TOY), "faces": ("lfw100", FACES), "convolutions": ("lfw100", CONVOLUTIONS)}


def configuration(kind: str, *settings: str) -> TrainConfig:
    dataset, own = KINDS[kind]
    return resolve_config(dataset, settings=[*SMALL, *own, *settings])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("match", ["batch", "dataset"])
def test_the_streams_find_what_one_search_of_the_whole_pool_finds(match: str, dtype: torch.dtype) -> None:
    """200 chunks are generated while others are searched; chunks that were overwritten too early would be found out."""
    shape, pool_size = (3, 16, 16), 6400
    torch.manual_seed(0)
    f = build_model("conv", shape, base_channels=8, latent_dim=16).cuda().eval()
    data = torch.randn(64, *shape, device="cuda") * 0.1
    options = NaignOptions(pool_size=pool_size, pool_chunk=32, match=match)
    matcher = build_matcher(options, data, StepContext(5))
    whole = LatentPool(shape, options.latent_scale, 5, device="cuda")
    search = ImleSearch(data.flatten(1))
    batch = Batch.of(data, torch.arange(len(data), device="cuda"))
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        for step in range(3):
            matcher.prepare(f, step)
            found, admissible = matcher.latents(f, batch)
            whole.draw = step
            search.reset()
            for start in range(0, pool_size, 32):
                samples = sample_in_evaluation(f, whole.chunk(start, start + 32))
                assert samples.dtype == dtype
                search.update(samples.flatten(1))
            expected = whole.rows(search.neighbours().indices[:, 0])
            assert bool(admissible.all()) and torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    whole = train(configuration(kind), tmp_path / "whole")
    train(configuration(kind), tmp_path / "again")
    first, second = checkpoint_paths(tmp_path / "again")
    # Without its last checkpoint the run begins again in the middle.
    for file in second.iterdir():
        file.unlink()
    second.rmdir()
    resumed = resume(tmp_path / "again")
    assert resumed.step == whole.step == STEPS and first.exists()
    for name in ("model", "ema", "optimizer"):
        a, b = (load_checkpoint(r.run, "last").tensors[name] for r in (whole, resumed))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("kind", ["faces", "convolutions"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(kind: str, precision: str, tmp_path: Path) -> None:
    settings = (f"precision={precision}", "steps=120", "log.checkpoint_every=0", "log.samples_every=0")
    result = train(configuration(kind, *settings), tmp_path / "run")
    losses = [r["loss"] for r in read_metrics(result.run) if r["kind"] == "train"]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_compiled_network_learns_as_the_plain_one(tmp_path: Path) -> None:
    losses = {}
    for compiled in ("false", "true"):
        result = train(configuration("faces", f"compile={compiled}", "precision=fp32"), tmp_path / compiled)
        losses[compiled] = [r["loss"] for r in read_metrics(result.run) if r["kind"] == "train"]
    assert losses["true"] == pytest.approx(losses["false"], rel=0.02)


def test_the_first_update_is_that_of_the_cpu(tmp_path: Path) -> None:
    """The same weights, latents, corruptions and match; sums in another order."""
    losses = {}
    for device in ("cpu", "cuda"):
        settings = ("steps=1", "precision=fp32", f"device={device}")
        result = train(configuration("faces", *settings), tmp_path / device)
        (record,) = (r for r in read_metrics(result.run) if r["kind"] == "train")
        losses[device] = {**record["terms"], "non_identity": record["non_identity"]}
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_a_trained_f_is_used_on_the_gpu(tmp_path: Path) -> None:
    result = train(configuration("convolutions"), tmp_path / "run")
    on_gpu, on_cpu = (Projector.load(result.run, device) for device in ("cuda", "cpu"))
    ours, theirs = (p.sample(40, seed=3) for p in (on_gpu, on_cpu))
    assert ours.shape == (40, 1, 25, 25)
    torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=1e-2, atol=1e-2)
