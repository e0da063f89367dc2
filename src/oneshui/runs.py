"""Which model a file is about, and where it lies under ``results/``: the only speller and parser of both.

Rules spell their own outputs (workflow/rules); tests/workflow/test_dag.py holds them against this module.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oneshui.config import TRAINED
from oneshui.seeds import seed_of

#: in place of the start model in names of models that were unlearned with photos of other people
WRONG_PHOTOS = "wrong_photos"
#: trained model -> the model that an attack on it uses as its reference
_REFERENCES = {"pretrain": "retrain", "retrain": "ceiling", "ceiling": "retrain"}


@dataclass(frozen=True)
class Model:
    """A model of a run: a trained one, or one that a method made of it.

    Attributes:
        trained: the training it comes from: ``pretrain`` (the original model), ``retrain`` (without the forget set),
            ``ceiling`` (a second retrained model) or ``fold3of8`` (without a fold of the people, ``of_fold``).
        method: name in the configuration of the method that unlearned it; empty for a trained model.
        wrong_photos: the method was given photos of other people: a control.
    """

    trained: str
    method: str = ""
    wrong_photos: bool = False

    @classmethod
    def of(cls, name: str) -> "Model":
        """Return the model that files call ``name``: ``retrain``, ``pretrain/ssd`` or ``wrong_photos/ssd``."""
        origin, _, method = name.partition("/")
        return cls("pretrain", method, True) if origin == WRONG_PHOTOS else cls(origin, method)

    @classmethod
    def of_fold(cls, fold: int, folds: int) -> "Model":
        """Return the fold model that was trained without fold number ``fold``, from 0, of ``folds``."""
        return cls(f"fold{fold}of{folds}")

    @classmethod
    def in_table(cls, method: str) -> "Model":
        """Return the model that a results table calls ``method``: a trained one, or the original after that method."""
        return cls(method) if method in TRAINED else cls("pretrain", method)

    def __str__(self) -> str:
        return f"{self.origin}/{self.method}" if self.method else self.trained

    @property
    def is_trained(self) -> bool:
        """Whether it was trained and not unlearned."""
        return not self.method

    @property
    def serves_every_n(self) -> bool:
        """Whether it is the same for every request, as the original model and the fold models are."""
        return self == ORIGINAL or self.fold is not None

    @property
    def fold(self) -> tuple[int, int] | None:
        """Number of the fold that it was trained without, from 0, and how many folds there are."""
        found = re.fullmatch(r"fold(\d+)of(\d+)", str(self))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def start(self) -> "Model":
        """The trained model that its method started from."""
        return Model(self.trained)

    @property
    def origin(self) -> str:
        """What files call the start model and the photos together: its name, or ``wrong_photos``."""
        return WRONG_PHOTOS if self.wrong_photos else self.trained

    @property
    def reference(self) -> "Model":
        """The reference model of an attack on it: a model that did not see the forget set.

        For an unlearned model that is the retrained model after the same method.
        """
        return Model("retrain", self.method) if self.method else Model(_REFERENCES[self.trained])

    @property
    def method_name(self) -> str:
        """What tables call it under ``method``: the name of its method, or of its training."""
        return self.method or self.trained

    @property
    def columns(self) -> dict[str, str]:
        """``origin`` and ``method`` in a METRICS table, where the name of a trained model stands twice."""
        return {"origin": self.origin, "method": self.method_name}

    @property
    def header(self) -> dict[str, str]:
        """What the header of its weights says it is."""
        return {"origin": self.origin, "method": self.method} if self.method else {"role": self.trained}


#: the trained models of a run
ORIGINAL, RETRAINED, SECOND_RETRAINED = map(Model, TRAINED)


@dataclass(frozen=True)
class Run:
    """A dataset, a request and a seed, with the paths of everything about them.

    Attributes:
        dataset: its name in the configuration.
        n: people in the request; None where a job serves every request.
        seed: of splits, training and request.
    """

    dataset: str
    n: int | None
    seed: int

    def with_seed(self, seed: int) -> "Run":
        """Return the same run of another seed."""
        return replace(self, seed=seed)

    @property
    def of_every_n(self) -> "Run":
        """What all request sizes of the dataset and the seed share."""
        return replace(self, n=None)

    @property
    def method_seed(self) -> int:
        """The seed of a method's own random numbers."""
        return seed_of("method", self.dataset, self.n or 0, self.seed)

    @property
    def splits(self) -> str:
        """The splits of the seed."""
        return f"results/splits/{self.dataset}/seed{self.seed}.parquet"

    def request(self, model: Model) -> str:
        """The photos that the method of ``model`` is given."""
        return f"results/requests/{self._folder}{'_wrong_photos' if model.wrong_photos else ''}.parquet"

    def artefact(self, model: Model) -> str:
        """What the method of ``model`` kept of the training data of the model that it starts from.

        Of a method that keeps the same for every request (``oneshui.methods.serves_every_n``): with n None.
        """
        return f"results/artefacts/{self._folder}/{model.start}/{model.method}.safetensors"

    def weights(self, model: Model) -> str:
        """The weights of a model."""
        return self._of_model("models" if model.is_trained else "unlearned", model, "safetensors")

    def scores(self, model: Model) -> str:
        """Answers and losses of a model."""
        return self._of_model("scores", model, "parquet")

    def features(self, model: Model) -> str:
        """Features of a model."""
        return self._of_model("features", model, "parquet")

    def measured(self, kind: str, model: Model) -> str:
        """What is measured of a model after a request, by the name of its folder: ``metrics``, ``attacks`` ..."""
        return f"results/{kind}/{self._folder}/{model}.parquet"

    @property
    def _folder(self) -> str:
        return f"{self.dataset}/seed{self.seed}" if self.n is None else f"{self.dataset}/n{self.n}/seed{self.seed}"

    def _of_model(self, kind: str, model: Model, suffix: str) -> str:
        run = self.of_every_n if model.serves_every_n else self
        return f"results/{kind}/{run._folder}/{model}.{suffix}"


@dataclass(frozen=True)
class DataFiles:
    """The files that hold the images of a run: index of the dataset, packed images, splits of the seed."""

    index: Path
    images: Path
    splits: Path


def runs_of(settings: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Iterator[Run]:
    """Yield the run of every setting (``dataset`` and ``n``) and seed."""
    for setting in settings:
        for seed in seeds:
            yield Run(setting["dataset"], setting["n"], seed)


def models_of(table: Mapping[str, Any]) -> list[Model]:
    """Return the models of a table, in its order."""
    trained = [ORIGINAL, RETRAINED, *([SECOND_RETRAINED] if table["privacy"] else [])]
    return [*trained, *(Model("pretrain", method) for method in table["methods"])]


def controls_of(table: Mapping[str, Any], data_methods: Collection[str]) -> list[Model]:
    """Return the models of a table that were given photos of other people; methods that use the data have no photos."""
    if not table["privacy"]:
        return []
    return [Model("pretrain", method, wrong_photos=True) for method in table["methods"] if method not in data_methods]


def measured_of(
    table: Mapping[str, Any], seeds: Sequence[int], data_methods: Collection[str]
) -> dict[str, list[tuple[Run, Model]]]:
    """Return what a table is made from: ``metrics`` of models and controls, and what it asks for beside them.

    That is ``attacks`` and ``refit`` with ``privacy``, and ``traces``.
    """
    models, controls = models_of(table), controls_of(table, data_methods)
    attacked = models if table["privacy"] else []
    traced = models if table.get("traces") else []
    wanted = {"metrics": [*models, *controls], "attacks": attacked, "refit": attacked, "traces": traced}
    return {
        kind: [(run, model) for run in runs_of(table["blocks"], seeds) for model in those]
        for kind, those in wanted.items()
    }
