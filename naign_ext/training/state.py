"""All that changes while a run trains: built from the configuration, captured for checkpoints, restored."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from naign_ext.checkpoint import Checkpoint, CheckpointError, Tensors
from naign_ext.config import TrainConfig
from naign_ext.devices import choose_device
from naign_ext.distributed.batch_norm import sync_batch_norm
from naign_ext.distributed.processes import SINGLE_PROCESS, Processes
from naign_ext.models import MODELS, build_model
from naign_ext.models.described import not_finite
from naign_ext.objectives import OBJECTIVES, Objective, StepContext
from naign_ext.seeds import derive_seed
from naign_ext.training.ema import ema_copy

# Its name up to torch 2.12 and after.
_KEEP_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class TrainingState:
    """Networks, optimiser, objective and position of a run; ``step`` counts the updates done.

    model holds the weights; f is what the objective applies: model, compiled or shared among processes. seconds:
    trained so far. score: of the weights as they stand, by validation, lower is better; None where it is not known.
    """

    model: nn.Module
    f: nn.Module
    ema: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    device: torch.device
    precision: str
    step: int = 0
    seconds: float = 0.0
    score: float | None = None

    def autocast(self) -> torch.autocast:
        """The context in which f is applied."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


def choose_own_device(wanted: str, processes: Processes = SINGLE_PROCESS) -> torch.device:
    """The device for the configuration's ``device``; ValueError where it does not exist.

    Of several processes each takes the CUDA device of its own number on its machine.
    """
    if processes.is_distributed and wanted != "cpu":
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        elif wanted != "cuda":
            raise ValueError(
                f"device: expected auto, cpu or cuda for {processes.world_size} processes, each of which takes a "
                f"device of its own, got {wanted!r}"
            )
        if wanted == "cuda":
            wanted = f"cuda:{processes.local_rank}"
    return choose_device(wanted)


def choose_precision(config: TrainConfig, device: torch.device) -> str:
    """fp32, bf16 or fp16 for the configuration's ``precision`` and network."""
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    network = MODELS[config.model.architecture]
    return "bf16" if network.half_precision_on_amx and has_amx() else "fp32"


def has_amx() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 in tiles, and torch knows it."""
    # torch before 2.13 does not say.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))


def build_state(config: TrainConfig, data: Tensor, context: StepContext) -> TrainingState:
    """The state before the first update; data (N, *shape), where f is to live. Seeds torch's global generator."""
    device, shared = data.device, context.shard.is_distributed
    precision = choose_precision(config, device)
    torch.manual_seed(derive_seed(config.seed, "weights"))
    model = build_model(config.model.architecture, data.shape[1:], **config.model.build_options())
    model = model.to(device, memory_format=_memory_format(config, device))  # type: ignore[call-overload]
    if shared:
        model = sync_batch_norm(model, device)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=config.optimiser.lr,
        betas=config.optimiser.betas,
        weight_decay=config.optimiser.weight_decay,
        fused=True,
    )
    f: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
    return TrainingState(
        model=model,
        f=_share(f, device) if shared else f,
        ema=ema_copy(model),
        optimiser=optimiser,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        objective=OBJECTIVES[config.objective.name](config.objective, data, context),
        device=device,
        precision=precision,
    )


def _memory_format(config: TrainConfig, device: torch.device) -> torch.memory_format:
    """Channels last where asked for, and on devices where the network is faster so."""
    chosen = config.memory_format
    if chosen == "auto":
        wanted = device.type in MODELS[config.model.architecture].channels_last
        chosen = "channels_last" if wanted else "contiguous"
    return torch.channels_last if chosen == "channels_last" else torch.preserve_format


def _share(f: nn.Module, device: torch.device) -> nn.Module:
    """f with gradients that are means over all processes. Its buffers need no exchange: they are the same."""
    devices = [device] if device.type == "cuda" else None
    options: dict[str, Any] = {_KEEP_BUFFERS: False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(f, device_ids=devices, **options)


def capture(state: TrainingState) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Tensors of a checkpoint by file, and the JSON-able rest."""
    names = [name for name, _ in state.model.named_parameters()]
    saved = state.optimiser.state_dict()
    optimiser = {f"{names[i]}/{k}": v for i, values in saved["state"].items() for k, v in values.items()}
    random = {"random/cpu": torch.get_rng_state()}
    if state.device.type == "cuda":
        random["random/cuda"] = torch.cuda.get_rng_state(state.device)
    objective = {f"objective/{key}": value for key, value in state.objective.state().items()}
    tensors = {
        "model": state.model.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": optimiser,
        "state": random | objective,
    }
    scheduler = {"lr": saved["param_groups"][0]["lr"], "last_step": state.step}
    info = {"seconds": state.seconds, "scheduler": scheduler, "scaler": state.scaler.state_dict()}
    return tensors, info


def restore(state: TrainingState, checkpoint: Checkpoint) -> None:
    """Put the state where the checkpoint left off."""
    names = [name for name, _ in state.model.named_parameters()]
    for file in ("model", "ema", "optimizer"):
        if name := not_finite(checkpoint.tensors[file]):
            raise CheckpointError(
                f"{checkpoint.path}: damaged: {file}.safetensors: {name} has values that are not finite"
            )
    try:
        state.model.load_state_dict(checkpoint.model)
        state.ema.load_state_dict(checkpoint.ema)
        state.optimiser.load_state_dict(_optimiser_state(state, names, checkpoint.tensors["optimizer"]))
        state.scaler.load_state_dict(checkpoint.info["scaler"])
        rest = checkpoint.tensors["state"]
        prefix = "objective/"
        state.objective.load_state(
            {key.removeprefix(prefix): value for key, value in rest.items() if key.startswith(prefix)}
        )
        torch.set_rng_state(rest["random/cpu"])
        if state.device.type == "cuda" and "random/cuda" in rest:
            torch.cuda.set_rng_state(rest["random/cuda"], state.device)
        state.step, state.seconds = checkpoint.step, float(checkpoint.info["seconds"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: foreign: does not fit the run's configuration: {error}"
        ) from None


def _optimiser_state(state: TrainingState, names: list[str], saved: Tensors) -> dict[str, Any]:
    current = state.optimiser.state_dict()
    weights = dict(state.model.named_parameters())
    by_name: dict[str, Tensors] = {}
    for key, value in saved.items():
        name, _, entry = key.rpartition("/")
        if name not in weights or value.shape not in ((), weights[name].shape):
            raise ValueError(f"optimizer.safetensors: {key} fits none of the weights")
        by_name.setdefault(name, {})[entry] = _laid_out_as(weights[name], value)
    if by_name and any(by_name.get(name, {}).keys() != {"step", "exp_avg", "exp_avg_sq"} for name in names):
        raise ValueError("optimizer.safetensors: lacks moments of some weights")
    return {
        "param_groups": current["param_groups"],
        "state": {i: by_name[name] for i, name in enumerate(names) if name in by_name},
    }


def _laid_out_as(weight: Tensor, value: Tensor) -> Tensor:
    """An optimiser's value in its weight's layout, which fused updates ask for; a checkpoint's are contiguous."""
    if weight.shape != value.shape:
        return value
    return torch.empty_like(weight, dtype=value.dtype, device=value.device).copy_(value)
