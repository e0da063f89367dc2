"""Identity edits: for every person the change of a few layers that takes them out of the model, made in advance.

A model that was trained without somebody answers on their images as a retrained model would. Fold models show this for
everybody at the price of K trainings. What is kept of a person is the change of one linear layer (or several) that
moves the activations on their images to where fold models have them, and those on everybody's images as little as
possible. It is the solution of a ridge regression, as in model editing (ROME, MEMIT).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oneshui.errors import ArtefactError
from oneshui.files import wrong_entry
from oneshui.log import logger
from oneshui.methods import params
from oneshui.methods.base import Artefact, OutOfFold, Unlearned
from oneshui.methods.edit_points import EditPoint, Recorder, edit_points, matrix_of
from oneshui.resume import NEVER, Resume, State
from oneshui.sets import ImageSet, Support
from oneshui.tasks import Task

#: share of the mean square of activations that the map between two models has as its penalty
_MAP_RIDGE = 1e-3
#: images on which a network is tried
_TRIED = 4
#: largest scale of a person's edits
_LARGEST_GAIN = 2.0
#: predictions with less than this share of the variance of what they predict are all the same
_SAME = 1e-6
#: channels that a layer moves less than this share of the most moved one are not edited
_DEAD = 1e-6


@dataclass(frozen=True)
class Edit:
    """What is kept of one person and layer: r rows in whitened coordinates.

    The change of the layer's (scaled) weights is D = T^T (I/w + Y Y^T)^-1 Y L^-1, where L L^T = C are the inputs of
    the layer on all training images with the ridge, and w the weight of the person's images.

    Attributes:
        keys: Y, (r, d_in): inputs of the layer on the person's images, times L^-T, or fewer rows that do the same.
        changes: T, (r, d_out): how much the sum behind the layer must move on them.
    """

    keys: Tensor
    changes: Tensor

    def change(self, weight: float, root: Tensor) -> Tensor:
        """Return D, (d_out, d_in), as the product of two thin matrices: ``root``, L, is large.

        Args:
            weight: w.
            root: L, (d_in, d_in), lower triangular.
        """
        small = torch.eye(len(self.keys), dtype=self.keys.dtype, device=self.keys.device) / weight
        left = torch.linalg.solve(small + self.keys @ self.keys.T, self.changes).T
        right = torch.linalg.solve_triangular(root, self.keys, upper=False, left=False)
        product: Tensor = left @ right
        return product

    def thinned(self) -> "Edit":
        """Return an edit with d_in rows at most that gives the same change, alone and beside others.

        A change depends on Y^T Y and T^T Y alone. With Y = Q R these are R^T R and (Q^T T)^T R.
        """
        if len(self.keys) <= self.keys.shape[1]:
            return self
        q, r = torch.linalg.qr(self.keys)
        return Edit(r, q.T @ self.changes)

    def of_rank(self, rank: int, weight: float) -> "Edit":
        """Return the edit with ``rank`` rows that is closest in what it does to everybody's images, |(D - D') L|.

        It is the truncated singular value decomposition of D L, written as keys and changes again.
        """
        if rank >= len(self.keys):
            return self
        u, s, v = torch.linalg.svd(self.keys, full_matrices=False)
        q, r = torch.linalg.qr((u.T @ self.changes).T * (s / (1 / weight + s.square())))
        left, size, right = torch.linalg.svd(r, full_matrices=False)
        directions = right[:rank] @ v
        lengths = (self.keys @ directions.T).norm(dim=0).clamp(min=1e-12)
        changes = (q @ left[:, :rank]) * (size[:rank] * (1 / weight + lengths.square()) / lengths)
        return Edit(directions * lengths[:, None], changes.T)

    def scaled(self, gain: float) -> "Edit":
        """Return the edit of which the change is ``gain`` times as large."""
        return Edit(self.keys, self.changes * gain)


def stacked(edits: Sequence[Edit]) -> Edit:
    """Return several people's edits as one, whose solution takes all of them into account at once."""
    return Edit(torch.cat([edit.keys for edit in edits]), torch.cat([edit.changes for edit in edits]))


class IdentityEdits(params.IdentityEdits):
    """Add to the last projections of a network what was precomputed for the people who ask.

    The targets of the last edited sum are the out-of-fold activations themselves, mapped to the model's coordinates by
    a ridge regression; those of earlier ones the model's own, plus the difference between the models without the
    person and those with them (what the maps cannot predict cancels). What a map predicts varies less than activations
    do; ``spread`` makes up for it.
    """

    def try_on(self, model: nn.Module, images: Tensor, labels: Tensor, task: Task) -> None:
        """Look for the layers that can be edited, in a network that is not trained yet."""
        like = copy.deepcopy(model)
        for parameter in like.parameters():
            if not parameter.any():  # scales of batch norms often start at 0, behind which no layer matters
                nn.init.ones_(parameter)
        edit_points(like, torch.cat([images, -images]), self.blocks)

    def precompute(
        self, model: nn.Module, train: ImageSet, val: ImageSet, *, seed: int, out_of_fold: Sequence[OutOfFold],
        resume: Resume = NEVER,
    ) -> Artefact:  # fmt: skip
        """Return keys and changes of every person and layer.

        Cost: two forward passes of the model and of each fold model over D_tr, and for each person a few over their
        own images and a solution with as many rows as these have positions. Memory: the models, d_in^2 numbers a
        layer, and all edits in float64.
        """
        points = self._points(model, train)
        others = [fold.load() for fold in out_of_fold]
        identities, folds = folds_of_identities(train, out_of_fold)
        made = _Precompute(self, model, others, points, train)
        found = made.resumed(resume)
        if not found:
            made.fit(val, folds[torch.searchsorted(identities, train.identities)])
        for identity, fold in list(zip(identities.tolist(), folds.tolist(), strict=True))[len(found) :]:
            found.append(made.edits_of(train.subset(train.identities == identity), fold))
            resume.save(lambda: made.state(found))
        gains = [gain for _, gain in found]
        mean_gain = sum(gains) / len(gains)
        if self.calibrate == "halfway":
            gains = [(gain + mean_gain) / 2 for gain in gains]
        tensors = {"identities": identities}
        for i, point in enumerate(points):
            edits = [of_person[i].scaled(gain) for (of_person, _), gain in zip(found, gains, strict=True)]
            tensors |= {
                f"{point.layer}/keys": torch.cat([edit.keys for edit in edits]).float(),
                f"{point.layer}/changes": torch.cat([edit.changes for edit in edits]).float(),
                f"{point.layer}/rows": torch.tensor([len(edit.keys) for edit in edits]),
                f"{point.layer}/root": made.roots[i].float(),
                f"{point.layer}/scale": point.scale.float(),
                f"{point.layer}/size": made.sizes[i].float(),
            }
        of_people = [t for name, t in tensors.items() if name.endswith(("/keys", "/changes"))]
        return Artefact(
            tensors,
            {
                "layers": [point.layer for point in points],
                "floats_per_person": sum(tensor.numel() for tensor in of_people) / len(identities),
                "mean_gain": mean_gain,
            },
        )

    def unlearn(self, model: nn.Module, support: Support, artefact: Artefact | None, *, seed: int) -> Unlearned:
        """Return the model with the edits of the people who ask. Cost: one solution a layer; no pass.

        The relative step is that of the sums behind the edited layers on the training images: root mean squares.
        Weights would say little: a change along inputs that hardly occur is large, and does next to nothing.
        """
        if artefact is None:
            raise ArtefactError("identity_edits needs its artefact, the edits of every person. Precompute it.")
        layers = _layers_of(artefact)
        asked = torch.isin(artefact.people(), support.identities).nonzero()[:, 0].tolist()
        result = copy.deepcopy(model)
        moved = before = 0.0
        for layer in layers if asked else []:
            edited, weight = _edited(result, layer), self._weight(layer == layers[-1])
            outputs, inputs = matrix_of(edited).shape
            root, scale, size = (
                artefact.need(f"{layer}/{name}", torch.empty(shape, device="meta")).double()
                for name, shape in (("root", (inputs, inputs)), ("scale", (outputs,)), ("size", ()))
            )
            edits = [_edit_of(artefact, layer, person) for person in asked]
            parts = [stacked(edits)] if self.solve == "joint" else edits
            if edits[0].keys.shape[1:] != (inputs,) or edits[0].changes.shape[1:] != (outputs,):
                raise ArtefactError(f"the artefact does not fit the layer {layer} of the model. Precompute it again.")
            change = torch.stack([edit.change(weight, root) for edit in parts]).sum(0)
            before += float(size)
            moved += float((change @ root).square().sum())
            _add(edited, change, scale)
        step = math.sqrt(moved / before) if before else 0.0
        unknown = len(support.identities) - len(asked)
        return Unlearned(result, {"relative_step": step, "unknown_identities": float(unknown)})

    def of_people(self, artefact: Artefact, rows: Tensor) -> Artefact:
        """Return the edits of the people at ``rows`` of ``identities``.

        The inputs of all training images stay as one matrix a layer, those of the others among them.
        """
        tensors = dict(artefact.tensors)
        tensors["identities"] = artefact.people()[rows]
        for layer in _layers_of(artefact):
            lengths = artefact.need(f"{layer}/rows").cpu()
            parts = torch.arange(int(lengths.sum())).split(lengths.tolist())
            here = torch.cat([parts[row] for row in rows.tolist()] or [torch.arange(0)])
            for name in (f"{layer}/keys", f"{layer}/changes"):
                tensors[name] = artefact.need(name)[here]
            tensors[f"{layer}/rows"] = artefact.need(f"{layer}/rows")[rows]
        return Artefact(tensors, artefact.metadata)

    def numbers_of_people(self, artefact: Artefact) -> Tensor:
        """Return the sizes of each person's keys and changes."""
        total = torch.zeros(len(artefact.people()), dtype=torch.int64)
        for layer in _layers_of(artefact):
            width = sum(artefact.need(f"{layer}/{name}").shape[1] for name in ("keys", "changes"))
            total += width * artefact.need(f"{layer}/rows").cpu()
        return total

    def _points(self, model: nn.Module, train: ImageSet) -> list[EditPoint]:
        rows = torch.arange(len(train))[:: max(1, len(train) // _TRIED)][:_TRIED]
        found = edit_points(model, train.images(rows), self.blocks)
        return [_thinned(point, self.max_positions) for point in found]

    def _weight(self, is_last: bool) -> float:
        return self.weight if is_last else self.weight_earlier


def folds_of_identities(train: ImageSet, out_of_fold: Sequence[OutOfFold]) -> tuple[Tensor, Tensor]:
    """Return the identities of ``train``, (I,) ascending, and the fold that each is in, (I,).

    Raises:
        ArtefactError: somebody is in no fold.
    """
    identities = train.identities.unique()
    folds = torch.full((len(identities),), -1)
    for number, fold in enumerate(out_of_fold):
        folds[torch.isin(identities, fold.identities)] = number
    if (folds < 0).any():
        raise ArtefactError(
            f"{int((folds < 0).sum())} training identities are in no fold. Train the fold models again."
        )
    return identities, folds


class _Precompute:
    """What is shared by the edits of all people.

    Args:
        method: the hyper-parameters.
        model: the model that will be edited.
        others: the fold models.
        points: where it is edited.
        train: D_tr.
    """

    def __init__(
        self, method: IdentityEdits, model: nn.Module, others: list[nn.Module], points: list[EditPoint], train: ImageSet
    ) -> None:
        self.method, self.points, self.train = method, points, train
        self.edited = copy.deepcopy(model)
        self.plain = Recorder(model, points)
        self.folds = [Recorder(other, points) for other in others]
        self.roots: list[Tensor] = []
        self.sizes: list[Tensor] = []
        self.maps: list[list[Tensor]] = []

    def fit(self, val: ImageSet, fold_of_image: Tensor) -> None:
        """Fit L of each layer, and the maps from each fold model: on what both learned by heart, or neither.

        Sizes are the sums of squares of what stands behind the layers, over the training images.

        Args:
            val: half of its people, and the images of other folds, fit the maps. How much activations on unseen images
                vary is measured on the other half.
            fold_of_image: (N,) on the CPU.
        """
        grams: list[Tensor | float] = [0.0] * len(self.points)
        self.sizes = [torch.zeros((), dtype=torch.float64, device=self.train.device) for _ in self.points]
        fitted, held_out = ([[_Ridge() for _ in self.points] for _ in self.folds] for _ in range(2))
        first = torch.isin(val.identities, val.identities.unique()[::2])
        in_no_fold = torch.full((len(val),), -1)
        parts = [(self.train, fold_of_image, fitted), (val.subset(first), in_no_fold, fitted)]
        if self.method.spread and first.all():
            logger.warning("validation images are of one person: spread cannot be measured, and is taken as 0")
        elif self.method.spread:
            parts.append((val.subset(~first), in_no_fold, held_out))
        for images, folds, pairs in parts:
            for rows in torch.arange(len(images)).split(self.method.batch_size):
                batch = images.images(rows)
                keys, sums, _ = self.plain(batch)
                if images is self.train:
                    grams = [gram + _gram(z) for gram, z in zip(grams, keys, strict=True)]
                    self.sizes = [size + h.square().sum() for size, h in zip(self.sizes, sums, strict=True)]
                for number, (other, ridges) in enumerate(zip(self.folds, pairs, strict=True)):
                    known = (folds[rows] != number).to(batch.device)
                    _, theirs, _ = other(batch)
                    for ridge, x, y in zip(ridges, theirs, sums, strict=True):
                        ridge.add(x[known].flatten(0, 1), y[known].flatten(0, 1))
        for gram in grams:
            assert isinstance(gram, Tensor)
            penalty = self.method.ridge * gram.diagonal().mean()
            self.roots.append(torch.linalg.cholesky(gram + penalty * torch.eye(len(gram)).to(gram)))
        self.maps = [[ridge.solution() for ridge in ridges] for ridges in fitted]
        if self.method.spread:
            self.maps = [
                [ridge.spread(weights, self.method.spread) for ridge, weights in zip(ridges, maps, strict=True)]
                for ridges, maps in zip(held_out, self.maps, strict=True)
            ]

    def state(self, found: Sequence[tuple[list[Edit], float]]) -> State:
        """Return what was fitted, and the edits and gains of the first people."""
        edits = {f"{n}.{i}": edit for n, (of_person, _) in enumerate(found) for i, edit in enumerate(of_person)}
        groups = {
            "root": {str(i): root for i, root in enumerate(self.roots)},
            "size": {str(i): size for i, size in enumerate(self.sizes)},
            "map": {f"{fold}.{i}": each for fold, maps in enumerate(self.maps) for i, each in enumerate(maps)},
            "keys": {name: edit.keys for name, edit in edits.items()},
            "changes": {name: edit.changes for name, edit in edits.items()},
        }
        return groups, {"gains": [gain for _, gain in found]}

    def resumed(self, resume: Resume) -> list[tuple[list[Edit], float]]:
        """Put back what ``state`` returned in a process that was killed; return the edits and gains, none at first."""
        loaded = resume.load()
        if loaded is None:
            return []
        groups, note = loaded
        layers = range(len(self.points))
        with resume.restoring():
            self.roots = [groups["root"][str(i)] for i in layers]
            self.sizes = [groups["size"][str(i)] for i in layers]
            self.maps = [[groups["map"][f"{fold}.{i}"] for i in layers] for fold in range(len(self.folds))]
            found = [
                ([Edit(groups["keys"][f"{n}.{i}"], groups["changes"][f"{n}.{i}"]) for i in layers], float(gain))
                for n, gain in enumerate(note["gains"])
            ]
        logger.info("resuming after %d people", len(found))
        return found

    def edits_of(self, images: ImageSet, fold: int) -> tuple[list[Edit], float]:
        """Return one person's edit of each point, in the order of depth, and the gain that would suit them.

        Args:
            images: of the person in D_tr.
            fold: number of the person's fold.
        """
        batch = images.images(torch.arange(len(images)))
        keys, sums, logits = self.plain(batch)
        here, mapped, answers = sums, {}, {}
        # the last layer's targets come from the person's own fold alone
        for number in range(len(self.folds)) if len(self.points) > 1 else (fold,):
            _, theirs, answers[number] = self.folds[number](batch)
            mapped[number] = [_apply(weights, x) for weights, x in zip(self.maps[number], theirs, strict=True)]
        edits: list[Edit] = []
        changes: list[Tensor] = []
        with _restored(self.edited, self.points):
            recorder = Recorder(self.edited, self.points)
            for i, point in enumerate(self.points):
                if i > 0:
                    keys, here, _ = recorder(batch)
                target, is_last = mapped[fold][i], i == len(self.points) - 1
                if not is_last:
                    inside = [targets[i] for number, targets in mapped.items() if number != fold]
                    target = sums[i] + target - torch.stack(inside).mean(0)
                edits.append(self._solved(i, keys[i].flatten(0, 1), (target - here[i]).flatten(0, 1), is_last))
                changes.append(edits[-1].change(self.method._weight(is_last), self.roots[i]))
                self._edit(point, changes[-1])
        if self.method.calibrate == "none":
            return edits, 1.0
        return edits, self._gain(batch, images, changes, _sureness(images, answers[fold]), _sureness(images, logits))

    def _solved(self, i: int, keys: Tensor, changes: Tensor, is_last: bool) -> Edit:
        whitened = torch.linalg.solve_triangular(self.roots[i], keys.T, upper=False).T
        edit = Edit(whitened, changes).thinned()
        return edit if self.method.rank is None else edit.of_rank(self.method.rank, self.method._weight(is_last))

    def _edit(self, point: EditPoint, change: Tensor) -> None:
        _add(self.edited.get_submodule(point.layer), change, point.scale)

    def _gain(
        self, batch: Tensor, images: ImageSet, changes: Sequence[Tensor], wanted: float, original: float
    ) -> float:
        """Return the scale at which the model is as sure of a person's labels as ``wanted``, starting at ``original``.

        It is the smallest such scale, between two that were tried, or the one that comes closest.
        """
        if original <= wanted:
            return 0.0  # the model does not know them better than one that never saw them
        step = _LARGEST_GAIN / params.CALIBRATION_STEPS
        sure = [original]
        for number in range(1, params.CALIBRATION_STEPS + 1):
            with _restored(self.edited, self.points), torch.no_grad():
                for point, change in zip(self.points, changes, strict=True):
                    self._edit(point, number * step * change)
                sure.append(_sureness(images, self.edited(batch)))
            if sure[-1] <= wanted:
                return step * (number - (sure[-1] - wanted) / (sure[-1] - sure[-2]))
        return step * min(range(len(sure)), key=lambda number: abs(sure[number] - wanted))


class _Ridge:
    """A ridge regression with an intercept, from rows that come in batches."""

    def __init__(self) -> None:
        self.xx: Tensor | float = 0.0
        self.xy: Tensor | float = 0.0
        self.yy: Tensor | float = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take rows x (R, d) and y (R, e) into account."""
        x = _with_one(x)
        self.xx, self.xy, self.yy = self.xx + x.T @ x, self.xy + x.T @ y, self.yy + y.square().sum()

    def solution(self) -> Tensor:
        """Return the weights, (d + 1, e), the last row the intercept, which is not penalised."""
        assert isinstance(self.xx, Tensor) and isinstance(self.xy, Tensor)
        penalty = _MAP_RIDGE * self.xx.diagonal()[:-1].mean() * torch.ones(len(self.xx)).to(self.xx)
        penalty[-1] = 0
        weights: Tensor = torch.linalg.solve(self.xx + torch.diag(penalty), self.xy)
        return weights

    def spread(self, weights: Tensor, power: float) -> Tensor:
        """Return another fit's weights, (d + 1, e), so that what they predict from x varies more.

        A regression predicts means, which vary less than y. All predictions are moved away from their mean by one
        factor: the root of the ratio of the total variances, to ``power``. At 1 they vary as much as y. Weights that
        predict the same for every row stay.
        """
        if not isinstance(self.xx, Tensor) or not isinstance(self.xy, Tensor):
            return weights  # no rows
        rows = self.xx[-1, -1]
        centre = self.xx[-1] @ weights / rows
        predicted = (weights * (self.xx @ weights)).sum() / rows - centre.square().sum()
        wanted = self.yy / rows - (self.xy[-1] / rows).square().sum()
        if predicted <= _SAME * wanted:
            return weights
        factor = (wanted / predicted) ** (power / 2)
        result: Tensor = factor * weights
        result[-1] += (1 - factor) * centre
        return result


def _sureness(images: ImageSet, logits: Tensor) -> float:
    """Return the mean probability of the labels, of attributes their geometric mean.

    A mean loss would be that of a few images on which a model is sure and wrong.
    """
    return float((-images.task.losses(logits.float(), images.labels)).exp().mean())


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


def _apply(weights: Tensor, x: Tensor) -> Tensor:
    return _with_one(x) @ weights


def _gram(z: Tensor) -> Tensor:
    rows = z.flatten(0, 1)
    return rows.T @ rows


def _thinned(point: EditPoint, most: int) -> EditPoint:
    """Return a point with at most ``most`` positions, evenly spread, the first (a class token) among them."""
    many = len(point.positions)
    if many <= most:
        return point
    chosen = torch.linspace(0, many - 1, most).round().long().to(point.positions.device)
    return EditPoint(point.layer, point.read, point.is_input, point.scale, point.positions[chosen])


def _layers_of(artefact: Artefact) -> list[str]:
    """Return the names of the edited layers, in the order of depth.

    Raises:
        ArtefactError: it names none, or the rows that it has of each person in a layer are not those that are there.
    """
    wrong = wrong_entry(artefact.metadata, {"layers": "a list of different names"}, ["layers"])
    if wrong:
        raise ArtefactError(f"the artefact's header has {wrong}. Precompute it again.")
    layers: list[str] = artefact.metadata["layers"]
    for layer in layers:
        rows = artefact.need(f"{layer}/rows", artefact.people())
        lengths = [artefact.need(f"{layer}/{name}").shape[:1] for name in ("keys", "changes")]
        if (rows < 0).any() or any(length != (int(rows.sum()),) for length in lengths):
            raise ArtefactError(f"the artefact's '{layer}/rows' do not say whose its edits are. Precompute it again.")
    return layers


def _edited(model: nn.Module, layer: str) -> nn.Module:
    """Return a layer that an artefact edits.

    Raises:
        ArtefactError: the model has no such layer.
    """
    found = dict(model.named_modules()).get(layer)
    if not isinstance(found, nn.Linear | nn.Conv2d):
        raise ArtefactError(
            f"the artefact edits the layer {layer!r:.80}, which the model has not. Precompute it again."
        )
    return found


def _edit_of(artefact: Artefact, layer: str, person: int) -> Edit:
    """Return what an artefact holds of the person at one place of ``identities``."""
    rows = artefact.need(f"{layer}/rows").cpu()
    first = int(rows[:person].sum())
    here = slice(first, first + int(rows[person]))
    return Edit(artefact.need(f"{layer}/keys")[here].double(), artefact.need(f"{layer}/changes")[here].double())


def _add(layer: nn.Module, change: Tensor, scale: Tensor) -> None:
    """Add to a layer's weights the change that moves the sum behind it by ``change`` times its inputs."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    alive = scale.abs() > _DEAD * scale.abs().max()
    by = torch.where(alive, 1 / torch.where(alive, scale, 1.0), 0.0)
    with torch.no_grad():
        weight.add_((by[:, None] * change).reshape(weight.shape).to(weight))


class _restored:
    """Puts the weights of the edited layers back at the end of the block."""

    def __init__(self, model: nn.Module, points: list[EditPoint]) -> None:
        self.layers = [model.get_submodule(point.layer) for point in points]

    def __enter__(self) -> None:
        self.kept = [layer.weight.detach().clone() for layer in self.layers if isinstance(layer.weight, Tensor)]

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for layer, kept in zip(self.layers, self.kept, strict=True):
                assert isinstance(layer.weight, Tensor)
                layer.weight.copy_(kept)
