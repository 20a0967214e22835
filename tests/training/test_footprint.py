"""Memory of a training, told from its configuration, and refused before any of it is taken."""

import logging

import pytest
import torch

from naign_ext import memory
from naign_ext.config import ConfigError, resolve_config
from naign_ext.memory import NotEnoughMemoryError
from naign_ext.training import footprint as footprints
from naign_ext.training.footprint import check_memory, footprint
from naign_ext.training.trainer import train

CPU = torch.device("cpu")
PLAIN = ("augment.flip=false", "augment.shift=0", "augment.jitter=0")


def of(*settings, dataset="8gaussians", shape=(100, 2), device=CPU, precision="fp32", shards=1):
    config = resolve_config(dataset, settings=settings)
    return footprint(config, torch.empty(shape, device="meta"), device, precision, shards)


def test_weights_count_with_what_training_and_saving_hold_of_them():
    found = of("model.widths=[10]")
    assert found.parameters == 2 * 10 + 10 + 10 * 2 + 2
    assert found.weights == 7 * 4 * found.parameters and found.data == 0
    assert of("model.widths=[10]", device=torch.device("cuda")).weights == 5 * 4 * found.parameters


def test_a_batch_counts_by_its_terms_its_layers_and_its_shards():
    imle = ("objective=imle", "model.widths=[10]", "batch_size=64")
    # The input twice (as it is, and times a gain), 10 before and after the activation, and the output.
    row = 4 * (2 + 2 * (10 + 10) + 2) // 2
    assert of(*imle).batch == 64 * row
    assert of(*imle, shards=4).batch == 16 * row
    assert of(*imle, precision="bf16").batch == 32 * row
    naign = ("objective.projection_weight=0", "objective.denoise_weight=1", *imle[1:])
    assert of(*naign).batch == 3 * 64 * row
    projected = ("objective.projection_weight=1", "objective.pool_size=50", "objective.denoise_weight=0")
    assert of(*projected, *imle[1:]).batch == (2 * 64 + 50) * row


def test_copies_of_the_data_and_kept_matches_count():
    shape, image = (20, 1, 25, 25), 4 * 25 * 25
    small = ("objective=imle", "objective.match=batch", "model.architecture=mlp", "model.widths=[4]", *PLAIN)
    assert of(*small, dataset="lfw100", shape=shape).data == 0
    assert (
        of(*small, "augment.flip=true", "augment.shift=1", dataset="lfw100", shape=shape).data
        == 18 * 20 * image
    )
    kept = of(*small, "objective.match=dataset", dataset="lfw100", shape=shape)
    assert kept.data == 20 * image
    assert of(*small, dataset="lfw100", shape=shape, device=torch.device("cuda")).data == 20 * image
    chunk = of("objective.pool_size=1000", "objective.pool_chunk=600")
    assert chunk.pool == 2 * 600 * 2 * 4 and of("objective.pool_size=1000").pool == 0


def test_the_largest_networks_that_settings_allow_are_counted_without_memory():
    widest = of("model.widths=[1048576, 1048576]", "batch_size=2147483648")
    assert widest.parameters > 1 << 40 and widest.total > 1 << 50
    conv = ("model.architecture=conv", "model.base_channels=131072", "model.latent_dim=1048576")
    assert of(*conv, *PLAIN, dataset="lfw100", shape=(100, 3, 1024, 1024)).parameters > 1 << 40
    before = torch.get_rng_state()
    of()
    assert torch.equal(before, torch.get_rng_state())


TOO_MUCH = {
    "weights": ["model.widths=[1000000,1000000]"],
    "batch": ["batch_size=2000000000"],
    "pool": ["objective.pool_size=2000000000", "objective.pool_chunk=2000000000", "model.widths=[1]"],
}


@pytest.mark.parametrize("part", TOO_MUCH)
def test_a_training_that_cannot_fit_is_refused_and_leaves_nothing_behind(tmp_path, monkeypatch, part):
    monkeypatch.setattr(footprints, "available_bytes", lambda device: 20 * 10**9)
    config = resolve_config("8gaussians", settings=[*TOO_MUCH[part], "log.tensorboard=false", "device=cpu"])
    with pytest.raises(
        NotEnoughMemoryError, match=r"^memory: training mlp with .* 20 GB are free on cpu"
    ) as caught:
        train(config, tmp_path / "run")
    assert str(caught.value).endswith(footprints._ADVICE[part])
    assert list(tmp_path.iterdir()) == []


def test_data_that_do_not_fit_are_refused_as_they_are_read(tmp_path, monkeypatch):
    from naign_ext.data import load_dataset, save_images

    save_images(torch.zeros(5, 3, 8, 8), tmp_path / "photos")
    monkeypatch.setattr(memory, "available_bytes", lambda device: 6 * 5 * 3 * 16 * 16)
    assert len(load_dataset(f"folder:{tmp_path / 'photos'}", image_size=16).train) == 4
    with pytest.raises(
        NotEnoughMemoryError, match=r"^memory: reading 5 images of 3x17x17 takes .* smaller image_size$"
    ):
        load_dataset(f"folder:{tmp_path / 'photos'}", image_size=17)
    with pytest.raises(NotEnoughMemoryError, match="heldout_fraction 1, "):
        load_dataset("moons", heldout_fraction=0.9999999)


def test_large_mlps_for_images_and_what_takes_most_of_the_memory_are_warned_of(monkeypatch, caplog):
    free = 100 * 10**9
    monkeypatch.setattr(footprints, "available_bytes", lambda device: free)
    caplog.set_level(logging.WARNING)
    config = resolve_config("lfw100", settings=["model.architecture=mlp", "model.widths=[512]"])
    check_memory(config, torch.empty(100, 3, 64, 64, device="meta"), CPU, "fp32", 1)
    assert caplog.messages == []
    check_memory(config, torch.empty(100, 3, 256, 256, device="meta"), CPU, "fp32", 1)
    (told,) = caplog.messages
    assert (
        "mlp with 201,524,736 parameters" in told and "model.architecture=conv has far fewer weights" in told
    )
    needed = of(dataset="8gaussians").total
    free = needed * 2 - 2
    check_memory(resolve_config("8gaussians"), torch.empty(100, 2, device="meta"), CPU, "fp32", 1)
    assert len(caplog.messages) == 2 and "are free on cpu" in caplog.messages[1]


def test_a_network_that_has_to_see_values_is_counted_by_its_weights(monkeypatch):
    class Looks(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * float(x.sum())

    monkeypatch.setattr(footprints, "build_model", lambda *_, **__: Looks(2, 2))
    found = of()
    assert (found.parameters, found.batch) == (6, 0)


@pytest.mark.parametrize(
    "setting",
    [
        "batch_size=1000000000000",
        "model.widths=[10000000000]",
        "model.widths=[]",
        "objective.pool_size=1000000000000",
        "objective.pool_chunk=1000000000000",
        "objective.resample_every=1000000000",
        "log.checkpoint_every=1000000000",
        "train_rows=1000000000000",
        "steps=100000000",
    ],
)
def test_counts_are_bounded(setting):
    with pytest.raises(ConfigError, match=rf"^{setting.partition('=')[0]}: expected .*, got "):
        resolve_config("8gaussians", settings=[setting])
