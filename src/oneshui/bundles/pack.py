"""Making a bundle while the training data is there: from a run of the workflow, or for a model of one's own."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from oneshui.bundles.bundle import (
    ARTEFACT,
    MODEL,
    Bundle,
    Key,
    check_new,
    key_name,
    new_bundle,
    number_of,
    write_note,
)
from oneshui.checked import read
from oneshui.config import Method, check_config, method_spec, per_channel
from oneshui.data.images import open_pixels
from oneshui.data.index import natural_order
from oneshui.data.layouts import read_annotations
from oneshui.data.pack import pack_images
from oneshui.devices import choose_device
from oneshui.errors import ArtefactError, BundleError, CheckpointError, ConfigError, DataError
from oneshui.files import sha256_file, stored_px_of
from oneshui.folders import own_folder
from oneshui.leases import lease_gpu
from oneshui.log import logger
from oneshui.methods import METHODS, artefact_of, artefact_spec, known_kind, make_method, needs_of
from oneshui.methods.base import Artefact, KeepsPeople, UnlearningMethod
from oneshui.models import ModelSpec, build_model, check_model, load_model, save_model
from oneshui.runs import ORIGINAL, Model, Run
from oneshui.schemas import INDEX, SPLITS, read_table
from oneshui.seeds import seed_of
from oneshui.sets import ImageSet
from oneshui.stages.images import input_of
from oneshui.stages.serve_request import check_artefact
from oneshui.tasks import Task
from oneshui.tensors import misfit
from oneshui.weights import config_of, input_of_weights, read_weights
from oneshui.yaml_files import read_yaml

_CPU = torch.device("cpu")
#: images of a batch when a model of one's own is tried
_BATCH = 64
#: share of the training images that a model trained on them answers as the manifest says, at least
_FEW = 0.5
#: what becomes a bundle: writes the model and the artefact into a folder, and returns what the bundle says of itself
_Fill = Callable[[Path, Key], dict[str, Any]]


def pack(
    out: str | Path, *, configfile: str | Path, dataset: str, method: str, seed: int | None = None,
    n: int | None = None, folder: str | Path = ".", key: str | Path | None = None,
) -> Bundle:  # fmt: skip
    """Make a bundle of a run of the workflow: its original model, and what a method keeps for it.

    Args:
        out: folder to make.
        configfile: the configuration that the workflow ran with.
        dataset: its name there.
        method: its name there.
        seed: of the run; None: the only one.
        n: request size that artefact and hyper-parameters are for; None: the only one of the data set's tables.
        folder: where the workflow ran, with ``results/``.
        key: file of the key, which is made if it is not there; None: a new one beside the bundle.

    Raises:
        BundleError: something is at ``out``, the key is none, or a file of the run is missing.
        ConfigError: the configuration has no such run or method, or the method needs the training data.
        OneShuiError: model, artefact, index and splits do not belong together.
    """
    config = read_yaml(configfile)
    check_config(config, str(configfile))
    _choose(dataset, config["datasets"], f"{configfile}: dataset")
    _choose(method, config["methods"], f"{configfile}: method")
    run = Run(
        dataset,
        _only(n, sorted({b["n"] for t in config["tables"].values() for b in t["blocks"] if b["dataset"] == dataset}),
              f"{dataset} has requests of", "-n"),
        int(_only(seed, config["seeds"], "the configuration has the seeds", "--seed")),
    )  # fmt: skip
    assert run.n is not None
    _refuse_in_turn(method, config["methods"][method])
    spec = method_spec(config["methods"], method, dataset, run.n)
    _check_method(method, spec)

    def fill(place: Path, secret: Key) -> dict[str, Any]:
        return _of_run(place, secret, run, Model("pretrain", method), spec, Path(folder), str(configfile))

    return _packed(Path(out), key, fill)


def pack_model(
    out: str | Path, *, weights: str | Path, model: str, images: str | Path, method: Mapping[str, Any],
    model_options: Mapping[str, Any] | None = None, input_px: int | None = None,
    mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None, validation: str | Path | None = None, key: str | Path | None = None,
    cpu: bool = False, threads: int = 1,
) -> Bundle:  # fmt: skip
    """Make a bundle of a timm model of one's own: what the method keeps is computed here, from the training images.

    Args:
        out: folder to make.
        weights: safetensors file of ``model.state_dict()``, with timm's names.
        model: timm name, with or without a tag.
        images: folder of a manifest and the images that the model was trained on.
        method: ``kind`` and hyper-parameters.
        model_options: keyword arguments of ``timm.create_model`` with which it was made.
        input_px: side of the square that images and photos are squashed to; None: what timm says.
        mean: of channel values in [0, 1], one number or three; None: what timm says.
        std: of channel values, likewise.
        options: of the manifest (config/README.md): columns, and ``classes`` in the order of the classifier.
        validation: folder of a manifest, with the same options, of people whom the model was not trained on.
        key: file of the key, which is made if it is not there; None: a new one beside the bundle.
        cpu: leave a GPU alone.
        threads: of the CPU.

    Raises:
        BundleError: something is at ``out``, the key is none, or the method needs models that only the workflow trains.
        ConfigError: the model, its weights, options or the method do not fit.
        DataError: the manifest or an image is wrong, or the method needs validation images.
    """
    spec = dict(method)
    _check_method(known_kind(spec), spec)
    if spec["kind"] in METHODS and METHODS[spec["kind"]].folds:
        raise BundleError(
            f"{spec['kind']} needs fold models, which are trained like yours without some of the people. Only the "
            "workflow trains them: describe your training in a configuration (config/README.md), run it, and pack the "
            "run. Or choose another method: ssd, pgu, jit or metaunlearn."
        )
    check_new(Path(out), "--out")
    device = choose_device(gpus=int(lease_gpu(0 if cpu else 1) is not None), threads=threads)

    given = _Input(model, input_px, mean, std)

    def fill(place: Path, secret: Key) -> dict[str, Any]:
        asked = dict(options or {})
        train, names = _image_set(Path(images), asked, given, place.parent, device)
        model_spec = given.spec(train.task, dict(model_options or {}))
        network = _network(model_spec, Path(weights), device)
        _try(network, train, Path(weights))
        val = train.subset(torch.arange(0))
        if validation is not None:
            known = {"classes": list(train.task.classes)} if train.task.kind == "classification" else {}
            val, _ = _image_set(Path(validation), known | asked, given, place.parent, device)
            if val.task != train.task:
                raise ConfigError(f"{validation} has other labels than {images}: {', '.join(val.task.classes)}.")
        seed = seed_of("method", "bundle")
        unlearner: UnlearningMethod = make_method(spec)
        try:
            artefact = unlearner.precompute(network, train, val, seed=seed)
        except DataError as error:
            if validation is not None:
                raise
            advice = "Hand in images of people whom the model was not trained on: --validation FOLDER"
            raise DataError(f"{error}. {advice}.") from error
        px = model_spec.input_px
        save_model(place / MODEL, network, model_spec, {"stored_px": [px, px]})
        people = _write_artefact(place, secret, unlearner, artefact, spec, dict(enumerate(names)))
        return {
            "source": {"weights": sha256_file(weights)}, "model": asdict(model_spec), "stored_px": [px, px],
            "method": spec["kind"], "spec": spec, "seed": seed, "people": people,
        }  # fmt: skip

    return _packed(Path(out), key, fill)


def method_of(configfile: str | Path, method: str) -> dict[str, Any]:
    """Return ``kind`` and hyper-parameters of a method in a file that has it under ``methods``, whatever else it has.

    Raises:
        ConfigError: there is none, or a value is wrong.
    """
    config = read_yaml(configfile)
    methods = config.get("methods") if isinstance(config, Mapping) else None
    if not isinstance(methods, Mapping):
        raise ConfigError(
            f"{configfile} has no methods. Give it an entry methods: {{NAME: {{kind: ..., params: ...}}}}."
        )
    _choose(method, methods, f"{configfile}: method")
    entry = methods[method]
    read(Method, entry, f"{configfile}: methods/{method}")
    _refuse_in_turn(method, entry)
    return {"kind": entry["kind"], **({"needs": entry["needs"]} if "needs" in entry else {}), **entry["params"]}


# ---- what both ways share


def _packed(out: Path, key: str | Path | None, fill: _Fill) -> Bundle:
    """Make a bundle, and its key if there is none yet."""
    check_new(out, "--out")
    place = Path(key) if key is not None else None
    if place is not None and place.resolve().is_relative_to(out.resolve()):
        raise BundleError(
            f"the key {place} would lie in the bundle, where it keeps nothing secret. Name another place."
        )
    secret = Key.read(place) if place is not None and os.path.lexists(place) else None
    saved, secret = secret is not None, secret or Key.new()
    place = place or out.absolute().parent / key_name(secret.fingerprint)
    with new_bundle(out) as made:
        made.folder.mkdir()
        note = fill(made.folder, secret)
        _warn_of_names(note, secret)
        note = write_note(made.folder, {**note, "served": 0}, secret)
        # a key that somebody else has put there since is another one, with which this bundle could never be served
        made.publish(lambda: None if saved else secret.save(place))
    return Bundle(out, note)


def _warn_of_names(note: Mapping[str, Any], key: Key) -> None:
    """Say so if classes are people, as where a model tells faces apart: names of classes can be read."""
    named = sum(key.person(name) in note["people"] for name in note["model"]["task"]["classes"])
    if named:
        logger.warning(
            "classes with the name of somebody who may ask: %d. Names of classes can be read in the bundle and in its "
            "receipts. If these classes are people, name them by numbers before you pack.", named,
        )  # fmt: skip


def _write_artefact(
    folder: Path, key: Key, method: UnlearningMethod, artefact: Artefact | None, spec: Mapping[str, Any],
    names: Mapping[int, str],
) -> dict[str, int]:  # fmt: skip
    """Write an artefact that calls people by numbers made from their hashes, and return how much it holds of each.

    Args:
        folder: of the bundle, with its model.
        key: of the bundle.
        method: that made the artefact.
        artefact: what it keeps, or None.
        spec: of the method.
        names: number of a person in the artefact -> name.

    Raises:
        ArtefactError: it has an entry for each person, but the method cannot take one out.
    """
    hashes = {number: key.person(name) for number, name in names.items()}
    people = dict.fromkeys(hashes.values(), 0)
    if len({number_of(person) for person in people}) != len(names):
        raise BundleError("two people have one hash, which happens once in a billion billions. Pack again.")
    if artefact is None:
        return people
    if isinstance(method, KeepsPeople):
        found = artefact.need("identities").tolist()
        strangers = set(found) - hashes.keys()
        if strangers:
            raise ArtefactError(
                f"the artefact knows people whom the training set does not have, e.g. {min(strangers)}."
            )
        numbers = torch.tensor([number_of(hashes[number]) for number in found])
        order = numbers.argsort()  # the order of the names would tell who is who
        artefact = method.of_people(artefact, order)
        artefact = replace(artefact, tensors={**artefact.tensors, "identities": numbers[order]})
        sizes = dict(zip(numbers[order].tolist(), method.numbers_of_people(artefact).tolist(), strict=True))
        people = {person: sizes.get(number_of(person), 0) for person in people}
    elif "identities" in artefact.tensors:
        raise ArtefactError(
            f"the artefact of {spec['kind']} has an entry 'identities', but its method cannot take a person out: "
            "give it of_people and numbers_of_people (oneshui.methods.base.KeepsPeople)."
        )
    artefact.save(folder / ARTEFACT, {"model": sha256_file(folder / MODEL), "spec": artefact_spec(spec)})
    return people


def _check_method(name: str, spec: Mapping[str, Any]) -> None:
    """Refuse a method that cannot serve requests, or whose hyper-parameters are wrong."""
    if needs_of(spec) == "data":
        raise ConfigError(
            f"{name} needs the training data to unlearn, so no bundle can serve it. Choose another method."
        )
    if spec["kind"] in METHODS:
        make_method(spec)


def _refuse_in_turn(name: str, entry: Mapping[str, Any]) -> None:
    if "of" in entry:
        raise ConfigError(
            f"{name} is {entry['of']}, in turn. Pack {entry['of']}, and forget people one after the other."
        )


def _choose(name: str, among: Mapping[str, Any], what: str) -> None:
    if name not in among:
        raise ConfigError(f"{what} {name!r} is not in it; it has: {', '.join(map(str, among)) or 'none'}")


def _only(value: int | None, allowed: Sequence[int], what: str, option: str) -> int:
    """Return a value that was given, or the only one that there is."""
    if value is not None and (option == "-n" or value in allowed):
        return value
    if value is None and len(allowed) == 1:
        return int(allowed[0])
    raise ConfigError(f"{what} {', '.join(map(str, allowed)) or 'no size'}. Name one: {option}.")


# ---- from a run of the workflow


def _of_run(
    place: Path, key: Key, run: Run, made: Model, spec: Mapping[str, Any], folder: Path, configfile: str
) -> dict[str, Any]:
    """Write model and artefact of a run, and return what the bundle says of itself."""
    keeps = needs_of(spec) == "artefact"
    paths = {
        "model": run.weights(ORIGINAL), "splits": run.splits, "index": f"results/data/{run.dataset}/index.parquet",
        **({"artefact": artefact_of(spec, run, made)} if keeps else {}),
    }  # fmt: skip
    for what, path in paths.items():
        if not (folder / path).exists():
            raise BundleError(
                f"the {what} of the run, {folder / path}, is not there. Make it while the data is there: snakemake "
                f"--cores all --configfile {configfile} -- {path}"
            )
    files = {what: folder / path for what, path in paths.items()}
    checkpoint = load_model(files["model"], _CPU)
    stored_px = stored_px_of(checkpoint.metadata)
    if stored_px is None:
        raise CheckpointError(f"{files['model']} does not say to which size its images were decoded. Train it again.")
    artefact: Artefact | None = None
    if keeps:
        artefact, header = Artefact.load(files["artefact"], _CPU)
        check_artefact(files["artefact"], header, checkpoint.sha256, files["model"], spec)
    names = _names(files, checkpoint.metadata.get("splits"))
    save_model(place / MODEL, checkpoint.model, checkpoint.spec, {"stored_px": stored_px})
    people = _write_artefact(place, key, make_method(spec), artefact, spec, names)
    return {
        "source": {"dataset": run.dataset, "n": run.n, "seed": run.seed}, "model": asdict(checkpoint.spec),
        "stored_px": stored_px, "method": made.method, "spec": dict(spec), "seed": run.method_seed, "people": people,
    }  # fmt: skip


def _names(files: Mapping[str, Path], trained_on: str | None) -> dict[int, str]:
    """Return number and name of everybody whom the original model was trained on.

    Raises:
        CheckpointError: the model was trained on another split.
    """
    splits, meta = read_table(files["splits"], SPLITS)
    if meta.get("content") != trained_on:
        raise CheckpointError(
            f"{files['model']} was trained on another split than {files['splits']} is: who is who would be wrong. Pack "
            "in the folder in which it was trained."
        )
    index, _ = read_table(files["index"], INDEX, ["image_id", "identity", "identity_name"])
    rows = splits.loc[(splits["role"] == "train") & ~splits["is_support"], "image_id"].to_numpy()
    train = index.set_index("image_id").loc[rows].drop_duplicates()
    return {int(number): str(name) for number, name in zip(train["identity"], train["identity_name"], strict=True)}


# ---- for a model of one's own


class _Input:
    """The input of a timm model, as it was given or as timm says."""

    def __init__(
        self, model: str, px: int | None, mean: float | Sequence[float] | None, std: float | Sequence[float] | None
    ) -> None:
        if px is None:
            known = config_of(model)
            if known is None:
                raise ConfigError(f"timm does not say what input {model!r} has. Give input_px, mean and std.")
            px = int(known.input_size[-1])
        self.model, self.px = model, px
        timm_mean, timm_std = input_of_weights(model) if mean is None or std is None else (mean, std)
        self.mean, self.std = timm_mean if mean is None else mean, timm_std if std is None else std

    def spec(self, task: Task, options: dict[str, Any]) -> ModelSpec:
        """Return the model's description."""
        return ModelSpec(self.model, task, self.px, per_channel(self.mean), per_channel(self.std), options)


def _image_set(
    folder: Path, options: Mapping[str, Any], given: _Input, scratch: Path, device: torch.device
) -> tuple[ImageSet, list[str]]:
    """Return the images of a manifest as the model's input, and the names of their people, in natural order.

    Decoded images lie in ``scratch`` until the process has ended with them.
    """
    found = read_annotations("manifest", folder, options)
    for said in found.notes:
        logger.warning("%s: %s", folder, said)
    task = Task(found.task, found.classes)
    frame = found.frame.sort_values("path", ignore_index=True)
    names = natural_order(frame["identity_name"].unique())
    number = {name: i for i, name in enumerate(names)}
    with own_folder(scratch, "images") as place:
        store = place / "images.npy"
        pack_images(folder, frame["path"].tolist(), store, height=given.px, width=given.px, n_threads=1)
        pixels = open_pixels(store, device)  # mapped: it stays open when the file is gone
    images = ImageSet(
        pixels, torch.arange(len(frame), device=pixels.device), task.label_tensor(frame["label"].to_list()).to(device),
        torch.tensor([number[name] for name in frame["identity_name"]]), input_of(given.spec(task, {})), task, device,
    )  # fmt: skip
    return images, names


def _network(spec: ModelSpec, weights: Path, device: torch.device) -> torch.nn.Module:
    """Return the network with its weights.

    Raises:
        ConfigError: they do not fit it, or it cannot serve as a backbone.
    """
    tensors = read_weights(weights)
    model = build_model(spec)
    wanted = model.state_dict()
    tensors |= {name: t for name, t in wanted.items() if name.endswith("num_batches_tracked") and name not in tensors}
    if wrong := misfit(tensors, wanted):
        raise ConfigError(
            f"{weights} does not fit {spec.architecture} with {spec.task.n_outputs} classes: {wrong}. Is it the "
            "state_dict of this model, made with these options, and are these its classes?"
        )
    model.load_state_dict(tensors)
    model = model.to(device).eval()
    check_model(model, spec, device)
    return model


def _try(model: torch.nn.Module, train: ImageSet, weights: Path) -> None:
    """Say how many training images a model answers as their labels are: few show that something is amiss."""
    right = total = 0
    with torch.no_grad():
        for images, labels in train.batches(_BATCH):
            logits = model(images)
            hits = logits.argmax(1) == labels if train.task.kind == "classification" else (logits > 0) == labels.bool()
            right, total = right + int(hits.sum()), total + hits.numel()
    share = right / total
    logger.info("%s answers %.0f %% of the training images' labels as the manifest does", weights, 100 * share)
    if share < _FEW:
        logger.warning("that is little. Are the order of the classes, the input size, mean and std those of training?")
