"""The one training loop, for every method: batch, teacher, attack, outer step, and at the epoch's end a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.contracts import Method, Progress
from compressor.core.errors import DivergedError
from compressor.core.reporting import Reporter
from compressor.evaluation.quick import QuickAccuracy
from compressor.frozen import FrozenTwin
from compressor.models.classifier import Classifier
from compressor.models.modes import module_mode
from compressor.numerics.ascent import draw_start, project
from compressor.numerics.randomness import drawing_from, make_generator
from compressor.runs.recipe import Recipe
from compressor.system.interruption import StopRequest
from compressor.system.process_group import ProcessGroup
from compressor.training.batches import BatchLoader, Share
from compressor.training.eta import EpochClock
from compressor.training.recording import Inner
from compressor.training.step.averaging import Average
from compressor.training.step.outer_precision import FloatLogits, outer_autocast
from compressor.training.step.perturbations import Perturbations
from compressor.training.step.schedules import learning_rate_at
from compressor.training.step.step_losses import StepLosses
from compressor.training.step.weight_perturbation import perturbed_weights
from compressor.training.teaching.teacher import FrozenTeacher
from compressor.training.timing import Stopwatch
from compressor.training.validator import Validator


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
    """What stays the same while training.

    Attributes:
        recipe: what to do.
        method: its objectives.
        student: the model that is trained, and whose copy is attacked.
        average: follows the student; its model is what is validated and saved.
        forward: the same model as the outer step calls it: wrapped for several processes, or compiled.
        unsynchronised: a context in which ``forward``'s gradients stay in this process, for all passes but the last.
        twin: the student's frozen twin, or None where the student itself is attacked.
        inner: attacks a batch, on the twin or on the student.
        teacher: asked by methods; None where there is none.
        optimizer: of the student's parameters.
        scaler: of the loss, for fp16; does nothing in other precisions.
        batch_loader: brings the batches.
        perturbations: where each image's last attack ended; None without a warm start.
        validator: measures what selects the best checkpoint.
        device: where all this is.
        process_group: the processes that train together.
        watch: told where the time goes.
    """

    recipe: Recipe
    method: Method
    student: Classifier
    average: Average
    forward: nn.Module
    unsynchronised: Callable[[], AbstractContextManager[Any]]
    twin: FrozenTwin | None
    inner: Inner
    teacher: FrozenTeacher | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batch_loader: BatchLoader
    perturbations: Perturbations | None
    validator: Validator
    device: torch.device
    process_group: ProcessGroup
    watch: Stopwatch

    def fit(
        self,
        state: State,
        *,
        save: Callable[[State], None],
        on_epoch: Callable[[State, QuickAccuracy], None],
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        """Train from ``state`` to the last epoch.

        Args:
            state: changed in place; the same in every process.
            save: writes everything that resuming needs; called now and then, and before an interruption.
            on_epoch: called after each epoch's validation, before ``save``, with ``state`` at the epoch's end.
            reporter: told of progress.
            stop: asked after every step.

        Raises:
            DivergedError: the loss is no longer finite. Interrupted: a signal came, and the state is saved.
        """
        pace = EpochClock(state.step)
        self.forward.train()
        while state.epoch < self.recipe.epochs:
            pace.start_epoch(state.images)
            losses = StepLosses()
            for share in self.batch_loader.shares(state.epoch, state.step):
                progress = Progress(state.epoch, self.recipe.epochs, share.step, self.batch_loader.plan.steps)
                with self.watch.part("attack"):
                    if share.is_first and self.twin is not None:
                        self.twin.refresh()
                    x_adv = self._attack(share, progress)
                with self.watch.part("outer"):
                    self._outer(share, x_adv, progress, losses)
                    if share.is_last:
                        means = losses.means(self.process_group)
                        self._step(means["total"], progress)
                if share.is_last:
                    with self.watch.part("logging"):
                        self._account(state, means, progress)
                        self._tell(reporter, state, progress)
                        pace.estimate(reporter, progress)
                        self._give_way(state, save, stop, due=self.process_group.is_main and pace.save_is_due())
                    losses = StepLosses()
            timing = pace.end_epoch(state.images) | ({"parts": self.watch.read()} if self.watch.is_exact else {})
            self.watch.reset()
            self.batch_loader.end_epoch(state.epoch)
            validation = self._validate(state, lambda: self._give_way_alone(state, save, stop))
            self._close_epoch(state, validation, timing)
            on_epoch(state, validation)
            save(state)
            pace.saved()
            self._raise_together(stop)

    def snapshot(self) -> dict[str, Any]:
        """Tensors and numbers that a resumed run needs, beside ``State``."""
        answers = self.batch_loader.soft_labels
        parts = {name: None if part is None else part.state_dict() for name, part in self._parts.items()}
        return parts | {"label_view": None if answers is None else answers.state()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over a snapshot; the label cache's view was taken when the batch loader was made."""
        for name, part in self._parts.items():
            if part is not None:
                part.load_state_dict(saved[name])

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, by its name in a snapshot."""
        return {name: getattr(self, name) for name in ("student", "average", "optimizer", "scaler", "perturbations")}

    def _attack(self, share: Share, progress: Progress) -> Tensor:
        """The inner maximisation, on the twin, or on the student in the mode that the method wants."""
        batch = share.batch
        if self.method.attack_mode == "none":
            return batch.x
        start = self._start(share, progress)
        is_training = self.method.attack_mode == "train"
        with module_mode(self.student, training=is_training), self._drawing("attack", share, progress):
            x_adv = self.inner(batch, start)
        if self.perturbations is not None:
            self.perturbations.keep(
                *(self.process_group.gather(t) for t in (share.index, share.variants, x_adv - batch.x))
            )
        return x_adv

    def _start(self, share: Share, progress: Progress) -> Tensor:
        """Where the attack begins: at the image's last perturbation, or where the recipe's noise puts it."""
        recipe, x = self.recipe, share.batch.x
        if self.perturbations is not None and progress.epoch > 0:
            kept = self.perturbations.recall(share.index, share.variants).to(x.device)
            return project(x + kept, x, recipe.threat)
        generator = make_generator(recipe.seed, "attack", progress.epoch, progress.step, share.number, device=x.device)
        return draw_start(x, recipe.threat, generator, recipe.attack_start, recipe.attack_start_scale)

    def _outer(self, share: Share, x_adv: Tensor, progress: Progress, losses: StepLosses) -> None:
        """The method's forwards and their gradients, added to those of the step's other passes."""
        passes = self.recipe.accumulation

        def terms_of(student: nn.Module) -> dict[str, Tensor]:
            with outer_autocast(self.recipe, self.device):
                return self.method.outer(FloatLogits(student), self.teacher, share.batch, x_adv, progress)

        with (
            nullcontext() if share.is_last else self.unsynchronised(),
            self._drawing("outer", share, progress),
            self._perturbed(terms_of, progress),
        ):
            terms = terms_of(self.forward)
            losses.add(terms)
            self.scaler.scale(terms["total"] / passes).backward()  # type: ignore[no-untyped-call]

    def _perturbed(
        self, terms_of: Callable[[nn.Module], dict[str, Tensor]], progress: Progress
    ) -> AbstractContextManager[None]:
        """AWP where the recipe asks for it: inside, the weights are moved against the share's loss."""
        gamma, start = self.recipe.awp_gamma, self.recipe.awp_warmup * progress.epochs
        if not gamma or progress.epoch < start:
            return nullcontext()
        # Scaled as the true pass is: in fp16 a gradient underflows otherwise, and its length does not matter.
        return perturbed_weights(self.student, lambda model: self.scaler.scale(terms_of(model)["total"]), gamma)

    def _step(self, loss: float, progress: Progress) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} in epoch {progress.epoch + 1}, step {progress.step + 1}.",
                f"Lower the learning rate (now {self.recipe.learning_rate:g}); earlier checkpoints are kept.",
            )
        rate = learning_rate_at(self.recipe, progress.epoch + progress.step / progress.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        # Each process has seen its own share: without this, each would hold, and attack, a model of its own.
        self.process_group.average_([b for b in self.student.buffers() if b.is_floating_point()])
        self.average.after_step(progress)

    def _account(self, state: State, means: dict[str, float], progress: Progress) -> None:
        images = self.batch_loader.plan.images_in(progress.step)
        for name, value in means.items():
            state.sums[name] = state.sums.get(name, 0.0) + value * images
        state.images += images
        state.step = progress.step + 1

    def _tell(self, reporter: Reporter, state: State, progress: Progress) -> None:
        epoch = self.batch_loader.plan.images_per_epoch
        losses = ", ".join(f"{name} {total / state.images:.4f}" for name, total in state.sums.items())
        split = f"; {self.watch.split()}" if self.watch.profile else ""
        reporter.advance(
            progress.epoch * epoch + state.images,
            self.recipe.epochs * epoch,
            f"epoch {progress.epoch + 1}: {losses}{split}",
        )

    def _drawing(self, part: str, share: Share, progress: Progress) -> AbstractContextManager[None]:
        """Dropout and stochastic depth draw the same numbers in a resumed run: a function of seed, epoch and step."""
        key = (self.recipe.seed, "dropout", part, progress.epoch, progress.step, share.number)
        return drawing_from(*key, device=self.device)

    def _give_way(self, state: State, save: Callable[[State], None], stop: StopRequest, *, due: bool) -> None:
        """Save where any process wants it, and stop where any was told to."""
        signum, wanted = self.process_group.maximum([stop.signum or 0, int(due)])
        if signum or wanted:
            save(state)
        if signum:
            stop.signum = signum
            stop.raise_if_set()

    def _give_way_alone(self, state: State, save: Callable[[State], None], stop: StopRequest) -> None:
        # Validation is shared out: processes don't meet there, and one that left would keep the others waiting.
        if self.process_group.size == 1 and stop.is_set:
            save(state)
            stop.raise_if_set()

    def _raise_together(self, stop: StopRequest) -> None:
        (signum,) = self.process_group.maximum([stop.signum or 0])
        stop.signum = signum or None
        stop.raise_if_set()

    def _validate(self, state: State, on_batch: Callable[[], None]) -> QuickAccuracy:
        self.average.after_epoch(state.epoch, on_batch)
        return self.validator.measure(self.average.model, on_batch)

    def _close_epoch(self, state: State, validation: QuickAccuracy, timing: dict[str, Any]) -> None:
        """Record the finished epoch, note whether it is the best, and turn to the next."""
        score = (validation.robust, validation.clean)
        if self.method.selects_by == "clean":
            score = (validation.clean, validation.robust)
        if score > state.best:
            state.best, state.best_epoch = score, state.epoch
        state.records.append(
            {
                "epoch": state.epoch + 1,
                "learning_rate": learning_rate_at(self.recipe, state.epoch),
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
