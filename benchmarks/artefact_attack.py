"""What the artefact of identity edits reveals about people, before and after they asked.

    python -m benchmarks.artefact_attack config/mufac_edits.yaml mufac_edits --methods edits edits_rank_4

reads a finished run of that configuration. The attacker has the model, the artefact and a photo. For the last edited
layer they compute its inputs z on the photo, in the artefact's coordinates, and compare them with the keys that are
kept of each person (largest cosine over positions and keys; of edits of low rank, whose keys are directions without a
sign, the largest absolute value). Keys of people with more rows than the layer has inputs are mixtures
(Edit.thinned), which hide them better. AUC of the score for photos of people in the artefact against those of test
people. An AUC far below 50 gives people away as well: the opposite sign knows them.

- trained: images that the edits were made from;
- new photo: the photo of each person that was kept out of every training;
- named: share of the new photos whose best match is the right person; chance: of a guess;
- asked: the trained images of the ten people who ask, before they do;
- after: the same images, against the artefact without these people;
- leverage: the same with z^T C^-1 z, from the inputs of all training images, which a request does not change.

Pictures that the dataset lists twice (column duplicate_group of its index) are in none of these: the same picture of
somebody else, or of a test person, matches exactly. Kept by others: share of all images of those who asked that still
match an entry of somebody else exactly (cosine of at least 0.99).

A linear probe on the artefact: the class that most images of a person have (of CelebA: the attribute Male), from the
mean of the keys and changes of the person, by ridge regression, five-fold cross-validation over people; beside it the
share of the largest class.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.finished_run import FinishedRun, arguments, finished_runs
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from oneshui.methods import make_method
from oneshui.methods.base import Artefact, without
from oneshui.methods.edit_points import EditPoint, Recorder, edit_points
from oneshui.metrics.roc import auc
from oneshui.schemas import INDEX, read_table
from oneshui.sets import ImageSet

#: attribute that the probe looks for where images have several
_ATTRIBUTE = "Male"
#: test images that a photo is compared with, at most
_MOST = 1500
#: cosine of what counts as the same picture
_SAME = 0.99


class Attacker:
    """Who has model and artefact.

    Args:
        seed: of the run.
        artefact: that is attacked.
        spec: of its method.
    """

    def __init__(self, seed: FinishedRun, artefact: Artefact, spec: Mapping[str, Any]) -> None:
        self.artefact, self.signed = artefact, spec["rank"] is None
        rows = torch.arange(len(seed.images.everything))[:4]
        point: EditPoint = edit_points(seed.model, seed.images.everything.images(rows), int(spec["blocks"]))[-1]
        self.layer, self.recorder = point.layer, Recorder(seed.model, [point])

    def inputs(self, images: ImageSet) -> Tensor:
        """Return the layer's inputs in the artefact's coordinates, (N, P, d)."""
        root = self.artefact.need(f"{self.layer}/root").double()
        found = []
        for batch, _ in images.batches(128):
            (z,), _, _ = self.recorder(batch)
            found.append(torch.linalg.solve_triangular(root, z.flatten(0, 1).T, upper=False).T.reshape(z.shape))
        return torch.cat(found)

    def matches(self, inputs: Tensor, artefact: Artefact) -> Tensor:
        """Return how well each image matches each person of an artefact, (N, people): the largest cosine."""
        keys = torch.nn.functional.normalize(artefact.need(f"{self.layer}/keys").double(), dim=1)
        owner = torch.arange(len(artefact.need("identities"))).repeat_interleave(artefact.need(f"{self.layer}/rows"))
        unit = torch.nn.functional.normalize(inputs, dim=2)
        best = torch.full((len(inputs), int(owner.max()) + 1), -1.0, dtype=torch.float64)
        for rows in torch.arange(len(inputs)).split(64):
            cosine = unit[rows] @ keys.T
            cosine = (cosine if self.signed else cosine.abs()).amax(1)
            best[rows] = best[rows].scatter_reduce(1, owner.expand(len(rows), -1), cosine, "amax")
        return best


def measured(seed: FinishedRun, artefact: Artefact, spec: Mapping[str, Any]) -> dict[str, float]:
    """Return what an attacker reaches, by column, in percent."""
    splits, attacker = seed.images.splits, Attacker(seed, artefact, spec)
    everybody, once = seed.images.training_set(None), listed_once(seed)
    train, test = (images.subset(once[images.image_ids]) for images in (everybody, seed.images.role("test")))
    test = test.subset(torch.arange(len(test))[:_MOST])
    reserved = splits[splits["is_support"] & (splits["role"] == "train")]
    new = seed.images.take(reserved["image_id"].to_numpy())
    new = new.subset(torch.isin(new.identities, artefact.need("identities")) & once[new.image_ids])
    asked = torch.tensor(seed.ranked[:10])
    theirs = train.subset(torch.isin(train.identities, asked))
    known = train.subset(torch.arange(len(train))[:: max(1, len(train) // _MOST)])
    z = {name: attacker.inputs(each) for name, each in
         {"trained": known, "new": new, "test": test, "asked": theirs}.items()}  # fmt: skip
    rest = without(make_method(spec), artefact, asked)
    all_of_theirs = attacker.inputs(everybody.subset(torch.isin(everybody.identities, asked)))
    still = attacker.matches(all_of_theirs, rest).amax(1) >= _SAME
    match = {name: attacker.matches(each, artefact) for name, each in z.items()}
    identities = artefact.need("identities")

    def area(members: Tensor, others: Tensor, member_set: ImageSet) -> float:
        scores = torch.cat([members, others]).numpy()
        who = np.concatenate([member_set.identities.numpy(), test.identities.numpy()])
        return 100 * auc(scores, np.arange(len(scores)) < len(members), who).value

    best = {name: each.amax(1) for name, each in match.items()}
    after = {name: attacker.matches(z[name], rest).amax(1) for name in ("asked", "test")}
    leverage = {name: -z[name].square().sum(2).mean(1) for name in ("asked", "test")}
    named = identities[match["new"].argmax(1)] == new.identities
    probe, largest = probed(artefact, attacker.layer, everybody)
    return {
        "trained": area(best["trained"], best["test"], known), "new photo": area(best["new"], best["test"], new),
        "named": 100 * float(named.double().mean()), "chance": 100 / len(identities),
        "asked": area(best["asked"], best["test"], theirs),
        "after": area(after["asked"], after["test"], theirs),
        "leverage": area(leverage["asked"], leverage["test"], theirs),
        "kept by others": 100 * float(still.double().mean()), "class": probe, "largest class": largest,
    }  # fmt: skip


def listed_once(seed: FinishedRun) -> Tensor:
    """Return whether each image of the dataset is the only one of its picture, (N,) bool."""
    index, _ = read_table(Path(f"results/data/{seed.run.dataset}/index.parquet"), INDEX, ["duplicate_group"])
    groups = index["duplicate_group"]
    return torch.from_numpy(groups.groupby(groups).transform("size").eq(1).to_numpy(copy=True))


def probed(artefact: Artefact, layer: str, train: ImageSet) -> tuple[float, float]:
    """Return the accuracy of the linear probe on the artefact, and the share of the largest class, in percent."""
    rows = artefact.need(f"{layer}/rows").tolist()
    parts = zip(artefact.need(f"{layer}/keys").split(rows), artefact.need(f"{layer}/changes").split(rows), strict=True)
    features = np.stack([torch.cat([keys.mean(0), changes.mean(0)]).numpy() for keys, changes in parts])
    labels = train.labels if train.labels.ndim == 1 else train.labels[:, train.task.classes.index(_ATTRIBUTE)]
    classes = np.array([int(labels[train.identities == each].float().mode().values)
                        for each in artefact.need("identities")])  # fmt: skip
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(0, 6, 13)))
    counts = np.unique(classes, return_counts=True)[1]
    folds = KFold(5, shuffle=True, random_state=0)
    return 100 * float(cross_val_score(model, features, classes, cv=folds).mean()), 100 * counts.max() / counts.sum()


def main() -> None:
    """Print the table: means over seeds."""
    parser = arguments("What the artefact of identity edits reveals about people.")
    parser.add_argument("--methods", nargs="+", default=["edits"])
    given = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in given.methods}
    for seed in finished_runs(given, 10):
        for name in given.methods:
            spec, artefact = seed.kept(name)
            found[name].append(measured(seed, artefact, spec))
    heads = list(next(iter(found.values()))[0])
    print(f"{len(found[given.methods[0]])} seeds, percent.\n")
    print(f"| method | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(f'{np.mean([row[head] for row in rows]):.1f}' for head in heads)} |")


if __name__ == "__main__":
    main()
