"""What a method costs: the terms in which a kind of ours states it, for the plan (docs/scaling.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: logits of an image; of a task with more of them scores and artefacts are larger
OUTPUTS = 40

#: hyper-parameters, as ``oneshui.config.method_spec`` returns them
Spec = Mapping[str, Any]
#: images (of ``eigh_s``: requests) by the rate that prices one, a column of resources/rates.csv
Passes = Mapping[str, float]


@dataclass(frozen=True)
class Sizes:
    """Expected numbers of images in the sets that a job works on; every identity has the mean number of images.

    Attributes:
        images: of the dataset.
        trained: of the set that the job's model was trained on: D_tr, or D_r after retraining.
        people: identities among them, whole ones.
        each: images of an identity.
        val, test: of these sets.
        n: identities (and photos) of the request; 0 where the job serves every n.
        forget, retain: D_f and D_r.
        asked: training images of all identities that can ask, which every model is scored on.
        reference: images that stand for the population in an attack.
        fit: training images among these.
    """

    images: float
    trained: float
    people: int
    each: float
    val: float
    test: float
    n: int
    forget: float
    retain: float
    asked: float
    reference: float
    fit: float


class Network(Protocol):
    """Sizes of a network (``oneshui.planning.rates.Rate``)."""

    @property
    def px(self) -> int: ...
    @property
    def parameters(self) -> int: ...
    @property
    def grams(self) -> float: ...
    @property
    def features(self) -> int: ...
    @property
    def edit_width(self) -> float: ...


@dataclass(frozen=True)
class Cost:
    """What a kind of method computes and keeps.

    Attributes:
        unlearn: passes through the network for one request.
        precompute: passes before it; None where nothing is precomputed.
        artefact_bytes: size of the artefact; None where there is none.
    """

    unlearn: Callable[[Spec, Sizes], Passes]
    precompute: Callable[[Spec, Sizes], Passes] | None = None
    artefact_bytes: Callable[[Spec, Sizes, Network], float] | None = None
