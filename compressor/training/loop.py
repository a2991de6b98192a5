"""The one training loop, for every method: batch, teacher, attack, outer step, and at the epoch's end a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from compressor.ascent import ascend
from compressor.augment import apply_variants, choose_variants, permutation, to_float
from compressor.contracts import Batch, Method, Progress
from compressor.errors import DivergedError
from compressor.modes import module_mode
from compressor.randomness import make_generator
from compressor.reporting import Reporter
from compressor.training.interruption import StopRequest
from compressor.training.measure import Measurement, measure
from compressor.training.recipe import Recipe
from compressor.training.teacher import FrozenTeacher

_SAVE_EVERY_SECONDS = 300.0
_ESTIMATE_STEPS = 3


@dataclass
class State:
    """All that changes while training, beside the weights: where we are, this epoch's sums, the records so far."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best: tuple[float, float] = (-1.0, -1.0)


@dataclass(frozen=True)
class Trainer:
    """What stays the same while training."""

    recipe: Recipe
    method: Method
    accelerator: Accelerator
    student: nn.Module
    optimizer: torch.optim.Optimizer
    teacher: FrozenTeacher | None
    images: Tensor
    labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor

    @property
    def steps(self) -> int:
        """Steps in an epoch; a last batch of one image is left out, since BatchNorm can't use it."""
        whole, rest = divmod(len(self.labels), self.recipe.batch_size)
        return whole + (rest > 1)

    def fit(
        self,
        state: State,
        *,
        save: Callable[[State], None],
        on_epoch: Callable[[State, Measurement], None],
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        """Train from ``state`` to the last epoch.

        Args:
            state: changed in place.
            save: writes everything that resuming needs; called now and then, and before an interruption.
            on_epoch: called after each epoch's validation, before ``save``, with ``state`` at the epoch's end.
            reporter: told of progress.
            stop: asked after every step.

        Raises:
            DivergedError: the loss is no longer finite. Interrupted: a signal came, and the state is saved.
        """
        recipe, saved, first_step = self.recipe, time.monotonic(), state.step
        self.student.train()
        while state.epoch < recipe.epochs:
            started, images_before = time.monotonic(), state.images
            for batch, progress in self._batches(state):
                x_adv = self._attack(batch, progress)
                with self._outer_precision():
                    terms = self.method.outer(self.student, self.teacher, batch, x_adv, progress)
                self._step(terms["total"], progress)
                self._account(state, terms, len(batch.y), progress)
                self._tell(reporter, state, progress)
                if progress.step - first_step == _ESTIMATE_STEPS:
                    self._estimate(reporter, progress, (time.monotonic() - started) / (_ESTIMATE_STEPS + 1))
                self._give_way(state, save, stop)
                if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                    save(state)
                    saved = time.monotonic()
            seconds = time.monotonic() - started
            rate = (state.images - images_before) / seconds
            validation = self._validate(lambda: self._give_way(state, save, stop))
            self._close_epoch(state, validation, {"seconds": seconds, "images_per_second": rate})
            on_epoch(state, validation)
            first_step = -_ESTIMATE_STEPS - self.steps  # one estimate a start is enough
            save(state)
            saved = time.monotonic()
            stop.raise_if_set()

    def _batches(self, state: State) -> Iterator[tuple[Batch, Progress]]:
        """The epoch's remaining batches: augmented on the device, with the teacher's answer if the method wants it."""
        recipe, device = self.recipe, self.accelerator.device
        order = torch.from_numpy(permutation(recipe.seed, state.epoch, len(self.labels)))
        for step in range(state.step, self.steps):
            index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            pixels = self.images[index].to(device, non_blocking=True)
            x = self._augment(pixels, state.epoch, index).contiguous(memory_format=torch.channels_last)
            y = self.labels[index].to(device, non_blocking=True)
            asks = self.teacher is not None and self.method.teacher_at == "natural"
            logits = self.teacher.soft_labels(x) if asks and self.teacher is not None else None
            yield Batch(x, y, logits), Progress(state.epoch, recipe.epochs, step, self.steps)

    def _augment(self, pixels: Tensor, epoch: int, index: Tensor) -> Tensor:
        recipe = self.recipe
        if recipe.augmentation == "none":
            return to_float(pixels)
        flip = recipe.augmentation == "crop-flip"
        variants = choose_variants(recipe.seed, epoch, index.numpy(), recipe.image_size, flip=flip)
        return apply_variants(pixels, torch.from_numpy(variants).to(pixels.device))

    def _attack(self, batch: Batch, progress: Progress) -> Tensor:
        """The inner maximisation, on the unwrapped student in the mode that the method wants."""
        recipe, threat = self.recipe, self.recipe.threat
        student = self.accelerator.unwrap_model(self.student)
        objective = self.method.inner(student, self.teacher, batch)
        if objective is None:
            return batch.x
        generator = make_generator(recipe.seed, "attack", progress.epoch, progress.step, device=batch.x.device)
        with module_mode(student, training=self.method.attack_mode == "train"):
            return ascend(
                objective,
                batch.x,
                threat,
                generator,
                steps=recipe.attack_steps,
                step_size=recipe.attack_step_size * threat.radius,
                start=recipe.attack_start,
                start_scale=recipe.attack_start_scale,
            )

    def _step(self, loss: Tensor, progress: Progress) -> None:
        if not math.isfinite(loss.item()):
            raise DivergedError(
                f"the loss became {loss.item()} in epoch {progress.epoch + 1}, step {progress.step + 1}.",
                f"Lower the learning rate (now {self.recipe.learning_rate:g}); earlier checkpoints are kept.",
            )
        rate = self.recipe.learning_rate_at(progress.epoch + progress.step / progress.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.optimizer.step()

    def _account(self, state: State, terms: dict[str, Tensor], images: int, progress: Progress) -> None:
        for name, value in terms.items():
            state.sums[name] = state.sums.get(name, 0.0) + value.item() * images
        state.images += images
        state.step = progress.step + 1

    def _tell(self, reporter: Reporter, state: State, progress: Progress) -> None:
        done = progress.epoch * len(self.labels) + state.images
        losses = ", ".join(f"{name} {total / state.images:.4f}" for name, total in state.sums.items())
        reporter.advance(done, self.recipe.epochs * len(self.labels), f"epoch {progress.epoch + 1}: {losses}")

    def _estimate(self, reporter: Reporter, progress: Progress, seconds_a_step: float) -> None:
        steps_left = (progress.epochs - progress.epoch) * progress.steps - progress.step - 1
        minutes = steps_left * seconds_a_step / 60
        reporter.note(f"training will take about {minutes:.0f} min more, by the first {_ESTIMATE_STEPS + 1} steps")

    def _outer_precision(self) -> torch.autocast:
        """Autocast for the outer step where the recipe asks for it; the attack's gradients stay in fp32."""
        wanted = self.recipe.precision == "bf16"
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=wanted)

    def _give_way(self, state: State, save: Callable[[State], None], stop: StopRequest) -> None:
        if stop.is_set:
            save(state)
            stop.raise_if_set()

    def _validate(self, on_batch: Callable[[], None]) -> Measurement:
        return measure(
            self.accelerator.unwrap_model(self.student),
            self.validation_images,
            self.validation_labels,
            self.recipe.threat,
            steps=self.recipe.selection_steps,
            seed=self.recipe.seed,
            device=self.accelerator.device,
            on_batch=on_batch,
        )

    def _close_epoch(self, state: State, validation: Measurement, timing: dict[str, float]) -> None:
        """Record the finished epoch, note whether it is the best, and turn to the next."""
        score = (validation.robust, validation.clean)
        if self.method.selects_by == "clean":
            score = (validation.clean, validation.robust)
        if score > state.best:
            state.best, state.best_epoch = score, state.epoch
        state.records.append(
            {
                "epoch": state.epoch + 1,
                "learning_rate": self.recipe.learning_rate_at(state.epoch),
                "loss": {name: total / state.images for name, total in state.sums.items()},
                "validation": {
                    "samples": validation.samples,
                    "clean_accuracy": validation.clean,
                    f"pgd_{self.recipe.selection_steps}_accuracy": validation.robust,
                },
                "best": state.best_epoch == state.epoch,
            }
        )
        state.timings.append({"epoch": state.epoch + 1, **timing})
        state.epoch, state.step, state.images, state.sums = state.epoch + 1, 0, 0, {}
