"""The fold model, served as it is: a model that never saw the person who asks, trained before they asked."""

import copy

import torch
from torch import Tensor, nn

from oneshui.errors import ArtefactError
from oneshui.log import logger
from oneshui.methods import params
from oneshui.methods.base import Artefact, OutOfFold, Unlearned
from oneshui.methods.identity_edits import folds_of_identities
from oneshui.sets import ImageSet, Support
from oneshui.tensors import misfit


class FoldModel(params.FoldModel):
    """Serve the fold model that was trained without most of the people who ask.

    For one person it is exact: the model never saw them. It costs what their fold mates taught the original model. Of
    several people it forgets those of one fold.
    """

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, out_of_fold: list[OutOfFold]
    ) -> Artefact:
        """Return the weights of all fold models and who is in which fold. Cost: none."""
        tensors = {
            f"fold{number}/{name}": value
            for number, fold in enumerate(out_of_fold)
            for name, value in fold.load().state_dict().items()
        }
        identities, folds = folds_of_identities(train, out_of_fold)
        return Artefact(
            {**tensors, "identities": identities, "folds": folds}, {"floats_per_person": _floats(tensors, identities)}
        )

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the fold model, or the model itself where nobody who asks is known. Cost: none."""
        if artefact is None:
            raise ArtefactError("fold_model needs its artefact, the fold models. Precompute it.")
        identities = artefact.people()
        asked = artefact.need("folds", identities).cpu()[torch.isin(identities, support.identities)]
        result = copy.deepcopy(model)
        found: dict[str, float | bool] = {"unknown_identities": float(len(support.identities) - len(asked))}
        if len(asked):
            numbers, counts = asked.unique(return_counts=True)
            prefix, most = f"fold{int(numbers[counts.argmax()])}/", int(counts.max())
            state = {name.removeprefix(prefix): t for name, t in artefact.tensors.items() if name.startswith(prefix)}
            wrong = misfit(state, model.state_dict())
            if wrong:
                raise ArtefactError(f"the artefact's {prefix} does not fit the model: {wrong}. Precompute it again.")
            result.load_state_dict(state)
            found["forgotten_share"] = most / len(support.identities)
            if most < len(asked):
                logger.warning(
                    "fold_model: the people who ask are in %d folds; the model has forgotten %d of %d",
                    len(numbers), most, len(asked),
                )  # fmt: skip
        else:
            found["relative_step"] = 0.0  # of another training there is no step: two differ by chance
        return Unlearned(result, found)

    def of_people(self, artefact: Artefact, rows: Tensor) -> Artefact:
        """Return the fold models that none of the others was trained into, and who of the people at ``rows`` has one.

        The fold models of other folds than a person's were trained on that person. So those of one fold are left, or
        none.
        """
        identities = artefact.people()
        folds = artefact.need("folds", identities).cpu()
        gone = torch.ones(len(folds), dtype=torch.bool)
        gone[rows] = False
        left = {fold for fold in folds.tolist() if (folds[gone] == fold).all()}
        rows = rows[torch.tensor([fold in left for fold in folds[rows].tolist()], dtype=torch.bool)]
        tensors = {
            name: tensor for name, tensor in artefact.tensors.items()
            if any(name.startswith(f"fold{fold}/") for fold in left)
        }  # fmt: skip
        tensors |= {"identities": identities[rows], "folds": folds[rows]}
        return Artefact(tensors, artefact.metadata)

    def numbers_of_people(self, artefact: Artefact) -> Tensor:
        """Return 1 for each: their fold."""
        return torch.ones(len(artefact.need("identities")), dtype=torch.int64)


def _floats(tensors: dict[str, Tensor], identities: Tensor) -> float:
    return sum(tensor.numel() for tensor in tensors.values()) / len(identities)
