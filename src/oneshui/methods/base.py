"""What an unlearning method sees, keeps and returns. The signatures are the privacy rule.

``precompute`` runs while the training data exists; what it returns is the artefact, all that may be kept.
``unlearn`` has no parameter through which training data could reach it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from oneshui.diagnostics import has_diverged, is_saturated
from oneshui.errors import ArtefactError, DataError
from oneshui.files import wrong_entry
from oneshui.log import logger
from oneshui.models import has_finite_weights
from oneshui.resume import Resume, State
from oneshui.sets import ImageSet, Support
from oneshui.tensors import load_tensors, not_finite, save_tensors, unlike

T = TypeVar("T")


@dataclass(frozen=True)
class Artefact:
    """Data-derived tensors kept past the discard line, with what there is to say about them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, header: dict[str, Any]) -> None:
        """Write the artefact atomically; ``header`` says which model and method it belongs to."""
        save_tensors(path, self.tensors, {**header, "artefact": self.metadata})

    @classmethod
    def load(cls, path: str | Path, device: torch.device) -> tuple["Artefact", dict[str, Any]]:
        """Return the artefact at ``path`` and its header.

        Raises:
            ArtefactError: the file is missing or damaged, or holds numbers that are not finite without saying that its
                training diverged.
        """
        try:
            tensors, header = load_tensors(path, device)
        except DataError as error:
            raise ArtefactError(f"{error} That is: run precompute_artefact again.") from error
        kept = header.pop("artefact", {})
        wrong = wrong_entry(kept, {"health": "numbers by name"})
        if wrong:
            raise ArtefactError(f"{path}: its header has {wrong}. Run precompute_artefact again.")
        broken = not_finite(tensors)
        if broken and not kept.get("health", {}).get("blown_up"):
            raise ArtefactError(
                f"{path} has {len(broken)} tensors with numbers that are not finite, e.g. {broken[0]!r}. Run "
                "precompute_artefact again."
            )
        return cls(tensors, kept), header

    def need(self, name: str, like: Tensor | None = None) -> Tensor:
        """Return the tensor ``name``.

        Args:
            name: of the tensor.
            like: a tensor of the shape and kind that it must have; None: any does.

        Raises:
            ArtefactError: it is not there, or has another shape or kind.
        """
        if name not in self.tensors:
            named = ", ".join(list(self.tensors)[:5]) or "nothing"
            raise ArtefactError(f"the artefact has no {name!r}, only: {named} ... Precompute it again.")
        wrong = "" if like is None else unlike(self.tensors[name], like)
        if wrong:
            raise ArtefactError(f"the artefact does not fit the model: {name!r} {wrong}. Precompute it again.")
        return self.tensors[name]

    def people(self) -> Tensor:
        """Return the tensor ``identities`` of a method that keeps something of each person, (I,) int64 on the CPU.

        Raises:
            ArtefactError: it is not there, or no list of different whole numbers.
        """
        people = self.need("identities").cpu()
        if people.dtype != torch.int64 or people.ndim != 1 or len(people.unique()) != len(people):
            raise ArtefactError("the artefact's 'identities' are no different whole numbers. Precompute it again.")
        return people


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model with what the method noticed while making it.

    Attributes:
        model: a new module; the one that was given is untouched.
        diagnostics: numbers and flags for the metrics, e.g. ``saturated``, ``blown_up``, ``relative_step``.
    """

    model: nn.Module
    diagnostics: dict[str, float | bool] = field(default_factory=dict)

    def checked(self) -> dict[str, float | bool]:
        """Return the diagnostics, with the flags ``blown_up`` and ``saturated`` where they apply (oneshui.diagnostics).

        A method that reports no ``relative_step`` is not asked about it.
        """
        step = self.diagnostics.get("relative_step")
        found = dict(self.diagnostics)
        if has_diverged(finite=has_finite_weights(self.model), relative_step=step or 0.0):
            found["blown_up"] = True
        if step is not None and is_saturated(step):
            found["saturated"] = True
        return found


@dataclass(frozen=True)
class OutOfFold:
    """A fold model: trained as the original model was, without one fold of the training identities.

    Attributes:
        identities: (F,) int64 on the CPU, ascending: those that it was trained without.
        load: reads it from its file, in evaluation mode on the device of the model.
    """

    identities: Tensor
    load: Callable[[], nn.Module]


class UnlearningMethod(Protocol):
    """A method that needs only the model, the support set and its artefact: it may run after the data is gone.

    Methods are frozen dataclasses of their hyper-parameters. ``seed`` feeds the method's own generators. A method that
    asks a network for more than answers and their gradient has ``try_on(model, images, labels, task)``, too: it does
    that once, and raises where a network cannot (``oneshui.networks``).

    A ``precompute`` that takes longer than some minutes has one more parameter, ``resume``, to go on from after a kill
    (``oneshui.resume``); so has the ``unlearn`` of a ``DataUnlearningMethod``.
    """

    def precompute(self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int) -> Artefact | None:
        """Return what must be kept from the training data.

        ``train`` is D_tr, without any support image. Where one of everybody is kept out of training, ``train.photos``
        has them, to simulate requests with: those of people who ask later are the photos that they will ask with.
        """

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return a new model that should behave as if it had never seen the identities of ``support``."""


class FoldMethod(Protocol):
    """A method whose artefact is made with ``folds`` fold models, too; ``unlearn`` is that of UnlearningMethod."""

    folds: int

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, out_of_fold: Sequence[OutOfFold]
    ) -> Artefact:
        """Return what must be kept; each identity of ``train`` is in one of ``out_of_fold``."""


#: a newly initialised network of the model's architecture, from a seed
Rebuild = Callable[[int], nn.Module]


@runtime_checkable
class KeepsPeople(Protocol):
    """A method whose artefact holds something of each training person, by their place in its tensor ``identities``.

    Methods without these two functions must keep nothing of single people: sums over all of them at most.
    """

    def of_people(self, artefact: Artefact, rows: Tensor) -> Artefact:
        """Return what is left for the people at ``rows`` (int64, CPU) of ``identities``, in that order.

        Whatever tells of the others goes. Those whom the method cannot take out without it go as well.
        """

    def numbers_of_people(self, artefact: Artefact) -> Tensor:
        """Return how many numbers the artefact holds of each person alone, (I,) int64 on the CPU."""


def without(method: Any, artefact: Artefact, identities: Tensor) -> Artefact:
    """Return an artefact without what its method keeps of some people alone; what it keeps of all together stays.

    Args:
        method: that made it.
        artefact: what it keeps.
        identities: (N,) int64 on the CPU, known or not.
    """
    if not isinstance(method, KeepsPeople):
        return artefact
    known = ~torch.isin(artefact.people(), identities)
    return method.of_people(artefact, known.nonzero()[:, 0])


def unlearn_in_turn(
    method: UnlearningMethod, model: nn.Module, support: Support, artefact: Artefact | None, *, size: int, seed: int
) -> Unlearned:
    """Serve a request in parts of ``size`` people, each with the model and the artefact that the last one left.

    A request of one part is served as it is. Of several, diagnostics are those of the part in which each was largest;
    people whom nobody knows are counted in all parts, and the whole is saturated where every part is. Cost: as many
    requests as there are parts.
    """
    parts = torch.arange(len(support.images)).split(size)
    if len(parts) == 1:
        return method.unlearn(model, support, artefact, seed=seed)
    found: list[dict[str, float | bool]] = []
    for number, rows in enumerate(parts):
        if number and artefact is not None:
            artefact = without(method, artefact, support.identities[parts[number - 1]])
        part = Support(
            support.images[rows.to(support.images.device)], support.labels[rows.to(support.labels.device)],
            support.identities[rows], support.task,
        )  # fmt: skip
        served = method.unlearn(model, part, artefact, seed=seed)
        found.append(served.checked())
        model = served.model.eval()
    names = dict.fromkeys(name for each in found for name in each)
    diagnostics = {name: max(each[name] for each in found if name in each) for name in names}
    if "saturated" in names:
        diagnostics["saturated"] = all(each.get("saturated", False) for each in found)
    if "unknown_identities" in names:
        diagnostics["unknown_identities"] = sum(each.get("unknown_identities", 0.0) for each in found)
    return Unlearned(model, diagnostics)


class DataUnlearningMethod(Protocol):
    """A reference method: it needs the forget set and the retain set themselves, so it cannot serve a request later."""

    def unlearn(
        self, model: nn.Module, forget: ImageSet, retain: ImageSet, *, seed: int, rebuild: Rebuild
    ) -> Unlearned:
        """Return a new model; ``forget`` is D_f without the support images, ``retain`` is D_r."""


def filled_in(function: Callable[..., T], **possible: Any) -> Callable[..., T]:
    """Return a method's function with those arguments filled in that it takes: ``resume``, ``out_of_fold``."""
    taken = signature(function).parameters
    return partial(function, **{name: value for name, value in possible.items() if name in taken})


def resumed_batches(
    images: ImageSet, batch_size: int, total: dict[str, Tensor], resume: Resume
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches that are still to be added to ``total``, which gets what a killed process had added up."""
    loaded = resume.load()
    first = 0
    if loaded is not None:
        groups, note = loaded
        with resume.restoring():
            total.update(groups["total"])
            first = int(note["batches"])
        logger.info("resuming after %d batches", first)

    def state(done: int) -> State:
        return {"total": total}, {"batches": done}

    for done, batch in enumerate(images.batches(batch_size, first), first + 1):
        yield batch
        resume.save(partial(state, done))


def relative_change(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Return ||after - before|| / ||before|| over all the tensors together."""
    step = torch.stack([(after[name].double() - tensor.double()).square().sum() for name, tensor in before.items()])
    size = torch.stack([tensor.double().square().sum() for tensor in before.values()])
    return float((step.sum() / size.sum()).sqrt())


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters by name, detached: every one of them moves unless a method says otherwise."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
