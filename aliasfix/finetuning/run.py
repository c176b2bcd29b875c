"""One run of fine-tuning: steps, evaluation, and where it stands."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import surgery
from ..errors import AliasfixError, DoubtWarning
from ..families.reading import Output
from ..files import checkpoint, loading, saving
from ..files.record import digest_of_weights
from ..measure.doubt import doubt
from ..text.wording import one_line
from . import kinds, optimizing, seeds, state
from .data import Data, batches, unpack
from .kinds import IGNORED, Labels
from .log import Log
from .losses import Objective
from .result import Epoch, Finetuning

REACH = 8  # pixels, of the two shifts that are to agree


class Run:
    """A model while it is trained.

    Args:
        folder: where everything is written.
        objective: the loss around the model.
        data: the batches.
        accelerator: accelerate's.
        identity: the options, which must be the same when it goes on.
        save_every: steps between two states; None for once an epoch.
        output: what the networks return.
    """

    def __init__(
        self,
        folder: Path,
        objective: Objective,
        data: Data,
        accelerator: Any,
        identity: Mapping[str, Any],
        save_every: int | None,
        output: Output = None,
    ) -> None:
        self.folder, self.objective, self.data, self.accelerator = folder, objective, data, accelerator
        self.identity, self.save_every, self.output = identity, save_every, output
        self.updates = len(data.train)
        self.model = objective.model.to(accelerator.device)
        self.optimizer, self.schedule = optimizing.optimizer(self.model, identity, self.updates)
        self.average = optimizing.average(self.model, identity["ema"])
        self.wrapped, self.stepper = accelerator.prepare(objective, self.optimizer)
        self.before = digest_of_weights(self.model.state_dict())
        self.epochs: list[Epoch] = []
        self.step, self.total = 0, 0.0
        self.doubt: str | None = None

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.model if self.average is None else cast(nn.Module, self.average.module)

    def check(self) -> None:
        """Run one batch through both networks, before anything is written.

        Raises:
            AliasfixError: logits or labels that do not fit, or a folder that cannot be made.
        """
        images, labels = unpack(next(iter(self.data.train)), self.data.labelled)
        self.model.eval()
        self._example = torch.ones(1, *images.shape[1:])
        with torch.no_grad(), self._memory(), self.accelerator.autocast():
            self.objective.learning = kinds.of(self.model, images, labels, self.output)
            said = self.objective.learning.said(self.model, images)
            target = self.objective.target(images) if self.objective.share else said
        self._classes = said.maps[0].shape[1]
        shapes = [[tuple(one.shape) for one in each.maps] for each in (target, said)]
        if shapes[0] != shapes[1] and self.objective.learning.sees_classes:
            raise AliasfixError(f"the original has {target.maps[0].shape[1]} classes and the model {self._classes}")
        if shapes[0] != shapes[1]:
            raise AliasfixError(f"the original returned {shapes[0]} and the model {shapes[1]}")
        self._check_labels(labels)
        if not self.objective.learning.sees_classes:
            return self._check_folder()
        if self.data.labelled and self.data.classes not in (None, self._classes):
            raise AliasfixError(
                f"label mismatch: there are {self.data.classes} class folders and the model has {self._classes} "
                f"classes: build it with num_classes={self.data.classes}, or learn without labels (distillation=1)"
            )
        self._first = target.maps[0].argmax(1).cpu(), labels.cpu() if isinstance(labels, Tensor) else None
        if self.data.validation is None:
            self._look()
        self._check_folder()

    def _check_folder(self) -> None:
        with contextlib.suppress(OSError):  # the check says which
            self.folder.mkdir(parents=True, exist_ok=True)
        saving.check_file(self.folder / state.BEST)

    def _look(self, *held_out: Tensor) -> None:
        """Say before the training if nothing can be learnt from what the original says of the images.

        Args:
            held_out: what it says of those held out, and their labels, beside the first batch.
        """
        if not self.objective.share or not self.objective.learning.sees_classes:
            return
        classes, labels = self._first
        if held_out:
            classes = torch.cat([classes, held_out[0].long()])
            labels = None if labels is None else torch.cat([labels, held_out[1].long()])
        self.doubt = doubt("the original", classes, labels, self._classes, self.data.prepared)
        if self.doubt is not None and self.accelerator.is_main_process:
            warnings.warn(self.doubt, DoubtWarning, stacklevel=2)

    def train(self, stored: Mapping[str, Any] | None) -> Finetuning:
        """Train to the end, from the beginning or from a state."""
        if stored is not None:
            self._load(stored)
        epochs, best = self.identity["epochs"], self.folder / state.BEST
        active = self.accelerator.is_main_process
        try:
            after = self.step if stored is not None else -1
            with self._memory(), Log(self.folder, after, epochs * self.updates, active) as log:
                if stored is None:
                    self._end_epoch(log)
                for epoch in range(self.step // self.updates, epochs):
                    self._epoch(epoch, log)
        except AliasfixError as error:
            if not best.exists():
                raise
            self._take_best()
            raise AliasfixError(f"{error}; {best} holds the best until then") from error
        self._take_best()
        return Finetuning(tuple(self.epochs), best, self.doubt)

    def _epoch(self, epoch: int, log: Log) -> None:
        _training(self.model, self.identity["batch_statistics"], self.objective.learning.trains or self.data.labelled)
        for batch in batches(self.data.train, self.identity["seed"], epoch, self.step % self.updates):
            lr = self.optimizer.param_groups[0]["lr"]
            loss = self._step(*unpack(batch, self.data.labelled))
            self.total += loss
            log.row(self.step, epoch + 1, lr=lr, loss=loss)
            if self.step % self.updates and self.save_every and self.step % self.save_every == 0:
                self._check_finite()
                self._save()
        self._end_epoch(log)

    def _step(self, images: Tensor, labels: Labels) -> float:
        """One step of the optimizer; the loss, mean over all processes."""
        step, seed, weight = self.step + 1, self.identity["seed"], self.objective.weight
        self._check_labels(labels)
        reach = min(REACH, (min(images.shape[-2:]) - 1) // 4)
        offsets = _offsets(images, reach, seed, step, self.accelerator) if weight else None
        seeds.seed_all(seed, seeds.MODEL, step, self.accelerator.process_index)
        loss = self.wrapped(images, labels, offsets, reach)
        mean = float(self.accelerator.reduce(loss.detach(), "mean"))
        if not math.isfinite(mean):
            raise AliasfixError(
                f"the loss was {mean} at step {step} (epoch {self.step // self.updates + 1}): training stopped; "
                f"lower lr={self.identity['lr']:g}, or look at the images"
            )
        self.accelerator.backward(loss)
        self.stepper.step()
        self.stepper.zero_grad()
        self.step = step
        if self.schedule is not None:
            self.schedule.step_update(step)
        if self.average is not None:
            self.average.update(self.model, step)
        return mean

    def _end_epoch(self, log: Log) -> None:
        """Evaluate, keep the best, and save where the run stands."""
        self._check_finite()
        loss = self.total / self.updates if self.step else None
        seen = self._evaluate()
        now = Epoch(self.step // self.updates, self.step, loss, **seen)
        log.row(now.step, now.epoch, **seen)
        self.epochs.append(now)
        self.total = 0.0
        if Finetuning(tuple(self.epochs), self.folder).best is now and self.accelerator.is_main_process:
            self._note(self.result)
            state.keep(self.result, self.folder / state.BEST, self._example)
        self._save()

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float | None]:
        """Loss, accuracy and agreement on the images held out."""
        if self.data.validation is None:
            return {}
        network, share, learning = self.result.eval(), self.objective.share, self.objective.learning
        rows = []
        for batch in self.data.validation:
            images, labels = unpack(batch, self.data.labelled)
            self._check_labels(labels)
            with self.accelerator.autocast():
                said = learning.said(network, images)
                losses = self.objective.fit(said, images, labels)
                target = self.objective.target(images) if share else said
            agreement = learning.agreement(said, target).to(losses)
            hits = agreement if labels is None else learning.right(said, labels).to(losses)
            classes = target.maps[0].argmax(1) if learning.sees_classes else torch.zeros_like(losses)
            true = labels if learning.sees_classes and isinstance(labels, Tensor) else classes
            seen = torch.stack([losses, hits, agreement, classes, true], 1)
            rows.append(self.accelerator.gather_for_metrics(seen))
        every = torch.cat(rows).double().cpu()
        if not self.step:
            self._look(every[:, 3], every[:, 4])
        loss, hit, agreement = every[:, :3].mean(0).tolist()
        return {
            "validation_loss": loss,
            "top1": hit if self.data.labelled else None,
            "agreement": agreement if share and not math.isnan(agreement) else None,
        }

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            content = {
                "identity": dict(self.identity),
                "step": self.step,
                "total": self.total,
                "epochs": [vars(epoch) for epoch in self.epochs],
                "doubt": self.doubt,
                "model": self.model.state_dict(),
                "ema": None if self.average is None else self.average.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
            }
            state.write(self.folder, content)
        self.accelerator.wait_for_everyone()

    def _load(self, stored: Mapping[str, Any]) -> None:
        try:
            self.model.load_state_dict(stored["model"])
        except RuntimeError as error:
            raise AliasfixError(f"{self.folder} holds a run of another model: {one_line(error)}") from error
        self.optimizer.load_state_dict(stored["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(stored["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(stored["scaler"])
        self.step, self.total, self.doubt = stored["step"], stored["total"], stored.get("doubt")
        self.epochs = [Epoch(**epoch) for epoch in stored["epochs"]]

    def _take_best(self) -> None:
        """Leave the best weights in the model."""
        self.accelerator.wait_for_everyone()
        loading.load_weights(self.model, checkpoint.read_checkpoint(self.folder / state.BEST))
        self._note(self.model)

    def _note(self, model: nn.Module) -> None:
        """Write into the plan that the weights are no longer those of the original."""
        plan, best = surgery.executed(model), Finetuning(tuple(self.epochs), self.folder).best
        if plan is not None and best.epoch:
            before = (plan.calibration or {}).get("before", self.before)
            images = len(self.data.train.dataset)
            note = {"method": "fine-tuning", "images": images, "agreement": best.agreement, "before": before}
            surgery.note_calibration(model, note)

    def _check_labels(self, labels: Labels) -> None:
        """Refuse labels that are not of the kind of the output, or beyond its classes."""
        if labels is None:
            return
        learning = self.objective.learning
        if type(learning) is kinds.Maps:
            raise AliasfixError("label mismatch: values have no labels here: distillation=1 learns from the original")
        wanted = list if isinstance(learning, kinds.Features) else 2 if learning.sees_classes else 3
        given = list if isinstance(labels, list) else 2 if labels.ndim == 1 else 3
        if wanted != given:
            names = {list: "objects for each image", 2: "classes (B,)", 3: "masks (B, H, W)"}
            raise AliasfixError(
                f"label mismatch: the loader's labels are {names[given]}, and the model's are {names[wanted]}; "
                "distillation=1 needs none"
            )
        if isinstance(labels, Tensor):
            _check_classes(labels[labels != IGNORED] if labels.ndim > 1 else labels, self._classes)

    def _check_finite(self) -> None:
        """The loss of a step is that of the weights before it: those after it may be gone."""
        bad = [name for name, value in self.model.state_dict().items() if not value.isfinite().all()]
        if bad:
            raise AliasfixError(
                f"{bad[0]} is not finite after step {self.step}: training stopped; lower lr={self.identity['lr']:g}"
            )

    @contextlib.contextmanager
    def _memory(self) -> Iterator[None]:
        """Say what to lower where memory runs out."""
        from accelerate.utils.memory import should_reduce_batch_size

        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
                raise
            raise AliasfixError(
                f"out of memory at step {self.step + 1}: lower batch_size={self.identity['batch_size']} or the images' "
                f"size, or give mixed_precision='bf16'"
            ) from error


def _training(model: nn.Module, batch_statistics: bool, trains: bool) -> None:
    """Train mode, but for BatchNorm where its statistics stay; evaluation mode where training wants labels."""
    model.train(trains)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not batch_statistics:
            module.eval()


def _offsets(images: Tensor, reach: int, seed: int, step: int, accelerator: Any) -> Tensor:
    """(2, B, 2) shifts of each image, of those drawn for the whole batch the ones of this process."""
    count, index = len(images), accelerator.process_index
    generator = torch.Generator().manual_seed(seeds.derived(seed, seeds.SHIFTS, step))
    drawn = torch.randint(-reach, reach + 1, (2, count * accelerator.num_processes, 2), generator=generator)
    return drawn[:, index * count : (index + 1) * count]


def _check_classes(labels: Tensor, classes: int) -> None:
    low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if low < 0 or high >= max(2, classes):
        raise AliasfixError(f"label mismatch: labels are {low} to {high} and the model has {classes} classes")
