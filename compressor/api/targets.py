"""What an attack is run on: a checkpoint, a module in memory, or what another package makes of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.api.inputs import Inputs, open_checkpoint
from compressor.core.contracts import Dataset
from compressor.core.reporting import Reporter
from compressor.models.in_memory import digest_of_module, module_name
from compressor.training.teacher_file import TeacherRequest


@dataclass(frozen=True)
class AttackTarget:
    """A model to attack.

    Attributes:
        name: of its file, without a folder; of a module in memory, its class and the start of its digest.
        sha256: of its file; of a module in memory, of its structure and tensors.
        model: decides what is broken; on the device.
        dataset: its data.
        recorded: the threat that the file records; empty where it records none.
        surrogate: makes what attacks differentiate, from a few images; ``None`` for the model's own twin.
        digest: what tells the model from others in a state; ``None`` where the file alone does not: options say how a
            checkpoint is read, and its tensors and structure must tell.
    """

    name: str
    sha256: str
    model: nn.Module
    dataset: Dataset
    recorded: Mapping[str, Any]
    surrogate: Callable[[Tensor], nn.Module] | None = None
    digest: str | None = None


def open_attack_target(
    request: TeacherRequest,
    inputs: Inputs,
    reporter: Reporter,
    *,
    device: torch.device,
    image_size: int | None = None,
) -> AttackTarget:
    """Open a checkpoint, or take a copy of a module, on a device, with the data that goes with it.

    Raises:
        CompressError: the model cannot be read, or the data does not go with it.
    """
    loaded, dataset = open_checkpoint(request, inputs, reporter, image_size=image_size)
    source = request.source
    name = module_name(source) if isinstance(source, nn.Module) else source.name
    sha256 = digest_of_module(source) if isinstance(source, nn.Module) else loaded.sha256
    return AttackTarget(name, sha256, loaded.classifier.to(device), dataset, loaded.metadata.get("threat", {}))
