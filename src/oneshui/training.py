"""Training of original and retrained models, which goes on after a kill.

Random numbers of an epoch come from a stream named after the run and the epoch, so that resuming at the start of an
epoch needs no generator state and ends, on the CPU, bit for bit where an uninterrupted run ends.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from oneshui.compiling import compiled, pays
from oneshui.config import TrainSpec
from oneshui.errors import DataError
from oneshui.files import wrong_entry
from oneshui.log import logger
from oneshui.metrics.measure import MEASURES, measure
from oneshui.replay import Replayed
from oneshui.resume import Resume, State, optimiser_state, restore_optimiser
from oneshui.schedule import cosine
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet
from oneshui.tensors import cut, misfit, not_finite, upload
from oneshui.utilisation import forward_flop, peak_of, training_rate

#: images of one evaluation pass
_EVAL_BATCH = 256


@dataclass
class _State:
    """Everything that an interrupted run needs to go on."""

    epoch: int
    history: list[dict[str, float]]
    best_epoch: int
    best: dict[str, Tensor]


def lr_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate of ``step`` as a share of its peak: linear warm-up, then cosine that ends at 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return cosine(step - warmup_steps, max(1, total_steps - warmup_steps))


class Trainer:
    """One training run: ``Trainer(...).run()`` leaves ``model`` with the weights of the best validation epoch.

    Args:
        model: freshly initialised, on the device.
        spec: hyper-parameters.
        train: D_tr or D_r, without support images.
        val: chooses the epoch.
        stream: names of the run's random streams.
        resume: what an interrupted run goes on from; cleared by the caller once the checkpoint is safe. Its
            fingerprint goes into the record.

    Raises:
        DataError: there is nothing to train or to validate on, or the loss is not finite.
    """

    def __init__(self, model: nn.Module, spec: TrainSpec, train: ImageSet, val: ImageSet, *,
                 stream: tuple[str | int, ...], resume: Resume) -> None:  # fmt: skip
        if not len(train) or not len(val):
            raise DataError(f"training needs images: {len(train)} to train on, {len(val)} to validate on")
        self.model, self.spec, self.train, self.val = model, spec, train, val
        self.stream, self.resume = stream, resume
        self.optimiser = _make_optimiser(model, spec)
        self._update = Replayed(self._plain_update, train.device, most=1)  # the odd last batch is computed as it is
        self._network: Callable[[Tensor], Tensor] = model  # for whole batches
        self.steps_per_epoch = len(cut(torch.arange(len(train)), spec.batch_size))

    def run(self) -> dict[str, Any]:
        """Train, load the best epoch into the model, and return the record for the checkpoint's metadata."""
        state = self._restore() or _State(0, [], -1, {})
        if pays(self.train.device, (self.spec.epochs - state.epoch) * self.steps_per_epoch):
            self._network = self._compiled()
        flop, peak = forward_flop(self.model, self.spec.input_px), peak_of(self.train.device, self.spec.precision)
        bar = tqdm(range(state.epoch, self.spec.epochs), desc=str(self.stream[0]), disable=None)
        for epoch in bar:
            started = time.monotonic()
            trained = self._train_epoch(epoch)  # waits for the device at its end
            rate = training_rate(len(self.train), time.monotonic() - started, flop, peak)
            entry = {"epoch": epoch, **trained, **self._validate()}
            state.history.append(entry)
            best = state.history[state.best_epoch]["val_measure"] if state.best_epoch >= 0 else -1.0
            if entry["val_measure"] > best:
                state.best_epoch = epoch
                state.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            state.epoch = epoch + 1
            bar.set_postfix(loss=f"{entry['train_loss']:.3f}", val=f"{entry['val_measure']:.3f}")
            told = ", ".join(f"{key} {value:.4g}" for key, value in entry.items() if key != "epoch")
            logger.info("epoch %d: %s; %s", epoch, told, rate)
            if state.epoch < self.spec.epochs:
                self.resume.save(lambda: self._state(state))
        self.model.load_state_dict(state.best)
        self.model.eval()
        return {
            "history": state.history, "best_epoch": state.best_epoch, "measure": MEASURES[self.train.task.kind],
            "images": len(self.train), "fingerprint": self.resume.fingerprint,
        }  # fmt: skip

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training set; loss and measure are running values under augmentation."""
        self.model.train()
        seed = seed_of("train", *self.stream, epoch)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.train), generator=generator)
        total = torch.zeros((), device=self.train.device, dtype=torch.float64)
        outputs = []
        warmup, steps = (e * self.steps_per_epoch for e in (self.spec.warmup_epochs, self.spec.epochs))
        cuda = [self.train.device] if self.train.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)  # dropout and the like draw from torch's own generator
            for number, rows in enumerate(cut(order, self.spec.batch_size)):
                lr = self.spec.lr * lr_factor(epoch * self.steps_per_epoch + number, warmup, steps)
                _set_lr(self.optimiser, lr)
                labels = self.train.labels[upload(rows, self.train.device)]
                losses, logits = self._step(rows, labels, generator)
                total += losses.sum()
                outputs.append((logits, labels))
        loss = float(total) / len(self.train)
        if not math.isfinite(loss):
            raise DataError(
                f"training diverged in epoch {epoch}: the loss is {loss}. Lower training lr = {self.spec.lr}."
            )
        logits, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        return {"lr": lr, "train_loss": loss, "train_measure": _measure(self.train, logits, labels)}

    def _step(self, rows: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Train on the images at ``rows``; return losses and logits."""
        losses, logits = self._update(labels, *self.train.draw(rows, self.spec.crop_scale, generator))
        return losses, logits

    def _plain_update(self, labels: Tensor, *drawn: Tensor) -> tuple[Tensor, Tensor]:
        """All of a step that the device can do alone."""
        whole = len(labels) == self.spec.batch_size
        logits = self._answer(self._network if whole else self.model, self.train.augment(*drawn))
        losses = self.train.task.losses(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()
        self.optimiser.step()
        return losses.detach(), logits.detach()

    def _answer(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return float32 logits; only the network computes in lower precision, never what makes its input."""
        with self._autocast():
            logits = network(images)
        return logits.float()

    def _compiled(self) -> Callable[[Tensor], Tensor]:
        """Return the network for whole batches, compiled."""
        rows = torch.arange(self.spec.batch_size) % len(self.train)
        return compiled(self.model.train(), self.train.images(rows), self._autocast)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.spec.precision == "bf16" and self.train.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _validate(self) -> dict[str, float]:
        self.model.eval()
        with torch.inference_mode():
            logits = torch.cat([self._answer(self.model, images) for images, _ in self.val.batches(_EVAL_BATCH)])
        loss = float(self.val.task.losses(logits, self.val.labels).mean())
        return {"val_loss": loss, "val_measure": _measure(self.val, logits, self.val.labels)}

    # --- resume ------------------------------------------------------------------------------------------------------

    def _state(self, state: _State) -> State:
        moments = optimiser_state(self.model.named_parameters(), self.optimiser)
        note = {"epoch": state.epoch, "history": state.history, "best_epoch": state.best_epoch}
        return {"model": self.model.state_dict(), "best": state.best, "optimiser": moments}, note

    def _restore(self) -> _State | None:
        """Load the saved state into model and optimiser, or return None if there is none for this run."""
        loaded = self.resume.load()
        if loaded is None:
            return None
        groups, note = loaded
        groups = {"model": {}, "best": {}, "optimiser": {}, **groups}
        parameters = dict(self.model.named_parameters())
        wrong = _damage(groups, note, self.model.state_dict(), parameters, self.spec.epochs)
        if wrong:
            logger.warning("%s is damaged (%s); starting from the beginning", self.resume.path, wrong)
            return None
        self.model.load_state_dict(groups["model"])
        restore_optimiser(self.model.named_parameters(), self.optimiser, groups["optimiser"])
        logger.info("resuming after epoch %d of %d", note["epoch"] - 1, self.spec.epochs)
        return _State(note["epoch"], note["history"], note["best_epoch"], groups["best"])


#: what an optimiser keeps of a parameter: SGD, AdamW
_KEPT = ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")


def _damage(
    groups: Mapping[str, Mapping[str, Tensor]], note: Mapping[str, Any], state: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor], epochs: int,
) -> str:  # fmt: skip
    """Return in words why a sidecar cannot be the state of this training, or nothing."""
    numbers = dict.fromkeys(("epoch", "best_epoch"), "a whole number >= 0")
    history, entries = note.get("history"), dict.fromkeys(("train_loss", "val_loss", "val_measure"), "a number")
    if wrong := wrong_entry(note, numbers, numbers):
        return f"its state has {wrong}"
    if (
        not note["best_epoch"] < note["epoch"] <= epochs
        or not isinstance(history, list)
        or len(history) != note["epoch"]
    ):
        return "its epochs are not those of this training"
    if any(wrong_entry(entry, entries, entries) for entry in history):
        return "its history lacks numbers"
    for group in ("model", "best"):
        if wrong := misfit(groups[group], state):
            return f"{group}: {wrong}"
        if broken := not_finite(groups[group]):
            return f"{group}: {broken[0]!r} is not finite"
    for path, value in groups["optimiser"].items():
        name, _, key = path.partition("/")
        fits = name in parameters and key in _KEPT and value.is_floating_point()
        if not fits or value.shape != (torch.Size([]) if key == "step" else parameters[name].shape):
            return f"optimiser: {path!r} is of no parameter"
    return "other tensors" if len(groups) > 3 else ""


def _make_optimiser(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    cuda = parameters[0].is_cuda  # there: one kernel for all parameters, and a rate that a recorded step reads
    lr = torch.tensor(spec.lr, device=parameters[0].device) if cuda else spec.lr
    if spec.optimiser == "adamw":
        return torch.optim.AdamW(
            parameters, lr, (spec.momentum, 0.999), weight_decay=spec.weight_decay, capturable=cuda, fused=cuda
        )
    return torch.optim.SGD(parameters, lr, spec.momentum, weight_decay=spec.weight_decay, fused=cuda)


def _set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def _measure(images: ImageSet, logits: Tensor, labels: Tensor) -> float:
    return measure(images.task.kind, logits.float().cpu().numpy(), labels.cpu().numpy())
