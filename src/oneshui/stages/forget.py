"""A real request: somebody's photo, the model that knew them, and what was packed before the data was deleted."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from oneshui.checked import read
from oneshui.config import Method, method_spec, training_data_paths
from oneshui.data.pack import decode
from oneshui.errors import ConfigError, DataError
from oneshui.files import TASK, read_header, stored_px_of, wrong_entry
from oneshui.folders import own_folder
from oneshui.leases import lease_gpu
from oneshui.methods import needs_of
from oneshui.runs import Model, Run
from oneshui.schemas import REQUEST, write_table
from oneshui.stages.unlearn import unlearn

#: identity of somebody whose place in the dataset nobody knows any more; no dataset has it
UNKNOWN = -1


def forget(
    model_path: Path, photos: Sequence[Path], artefact_path: Path | None, output_path: Path, *,
    config: Mapping[str, Any], method: str, labels: Sequence[str], gpus: int, threads: int,
) -> dict[str, Any]:  # fmt: skip
    """Unlearn the people on ``photos``, one photo each, and return the header of the new model.

    Photos are squashed to the size of the images that the model was trained on; they must be upright, cropped and
    aligned as those were. They are not kept.

    Args:
        model_path: a model that the workflow trained.
        photos: image files.
        artefact_path: what ``method`` kept of the training data of this very model; None if it keeps nothing.
        output_path: the unlearned model.
        config: a configuration; its entry of ``method`` counts, with the overrides of the model's dataset and of the
            request size that the artefact was made for (without one, or with one for every size: of the number of
            photos).
        method: name in the configuration.
        labels: one per photo: a class name; or names of the attributes that the person has, separated by commas.
        gpus: 1 to compute on a GPU where one is visible and the configuration does not say ``device: cpu``.
        threads: of the CPU.

    Raises:
        ConfigError: the method needs the training data or does not go with the artefact, the configuration does not
            know it or the model's dataset, or there is something at ``output_path``.
        DataError: a photo or a label is unusable.
        OneShuiError: what ``oneshui.stages.unlearn.unlearn`` raises.
    """
    _check_method(config, method, artefact_path)
    header = read_header(model_path)
    stored_px = stored_px_of(header)
    if stored_px is None or not {"model_spec", "dataset", "seed"} <= header.keys():
        raise DataError(f"{model_path} is not a model that the workflow made. Name a file under results/models.")
    dataset, task = header["dataset"], header["model_spec"].get("task")
    if wrong := wrong_entry(task, TASK, TASK):
        raise DataError(f"{model_path}: the task in its header has {wrong}. Name a file under results/models.")
    if dataset not in config.get("datasets", {}):
        raise ConfigError(
            f"the configuration does not know the model's dataset {dataset!r}; was the model made with it?"
        )
    size = (_size_of_artefact(artefact_path) if artefact_path else None) or len(photos)
    spec = method_spec(config["methods"], method, dataset, size)
    if not photos or len(labels) != len(photos):
        raise DataError(
            f"{len(photos)} photos and {len(labels)} labels, needed: at least one photo, and a label for each"
        )
    _check_output(output_path, [model_path, *photos, *([artefact_path] if artefact_path else [])])
    request = pd.DataFrame({
        "request_rank": range(len(photos)), "identity": UNKNOWN,
        "label": [label_of(label, task) for label in labels], "image": [png_of(photo, stored_px) for photo in photos],
    })  # fmt: skip
    run = Run(dataset, size, int(header["seed"]))
    origin = header.get("origin", header.get("role"))  # of an unlearned, of a trained model
    wanted = gpus if config.get("device") != "cpu" else 0
    gpu = lease_gpu(wanted, jobs_per_gpu=config.get("jobs_per_gpu", 1))
    # photos of requests that were killed go here, too, whatever their output was
    with own_folder(Path(tempfile.gettempdir()), "oneshui-request") as folder:
        path = folder / "request.parquet"
        write_table(
            path, request, REQUEST, {"task": task["kind"], "classes": list(task["classes"]), "dataset": dataset}
        )
        unlearn(
            model_path, path, artefact_path, output_path, run=run, model=Model.of(f"{origin}/{method}"), spec=spec,
            gpus=int(gpu is not None), threads=threads, withheld=training_data_paths(config),
        )  # fmt: skip
    return read_header(output_path)


def _check_method(config: Mapping[str, Any], method: str, artefact_path: Path | None) -> None:
    """Refuse a method that is not in the configuration, needs the data, or has no use for the artefact."""
    methods = config.get("methods") if isinstance(config, Mapping) else None
    if not isinstance(methods, Mapping) or not isinstance(config.get("datasets"), Mapping) or "data_root" not in config:
        raise ConfigError("the configuration lacks methods, datasets or data_root. Name the one that made the model.")
    if not isinstance(methods.get(method), Mapping):
        raise ConfigError(f"method {method!r} is not in the config; it has: {', '.join(map(str, methods))}")
    read(Method, methods[method], f"methods/{method}")
    for name, entry in config["datasets"].items():
        if not isinstance(entry, Mapping) or not ("synthetic" in entry or isinstance(entry.get("folder"), str)):
            raise ConfigError(f"datasets/{name} lacks folder or synthetic. Name the configuration that made the model.")
    if type(config.get("jobs_per_gpu", 1)) is not int:
        raise ConfigError(f"jobs_per_gpu = {config['jobs_per_gpu']!r}, allowed: a whole number")
    needs = needs_of(methods[method])
    if needs == "data":
        raise ConfigError(
            f"{method} needs the training data, which no request can be served with. Choose another method."
        )
    if (needs == "artefact") != (artefact_path is not None):
        advice = "Name it with --artefact (results/artefacts/...)" if needs == "artefact" else "Leave --artefact out"
        raise ConfigError(f"{method} needs {needs} beside the model and the photo. {advice}.")


def _size_of_artefact(path: Path) -> int | None:
    """The request size that an artefact was made for; None for every size."""
    header = read_header(path)
    if "n" not in header or "model_spec" in header:
        raise DataError(f"{path} is not an artefact. Name a file under results/artefacts.")
    size: int | None = header["n"]  # read_header has looked at it
    return size


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    if output.exists() or output.resolve() in {path.resolve() for path in inputs}:
        raise ConfigError(f"{output} is there, and nothing is replaced. Name a new file with --output.")


def label_of(label: str, task: Mapping[str, Any]) -> int | list[int]:
    """A class's number, or 0/1 for every attribute."""
    classes, named = list(task["classes"]), [name.strip() for name in label.split(",") if name.strip()]
    if task["kind"] == "classification":
        named = [label.strip()]
    unknown = [name for name in named if name not in classes]
    if unknown:
        raise DataError(f"label {', '.join(unknown)!r} is unknown to the model, allowed: {', '.join(classes)}")
    if task["kind"] == "classification":
        return classes.index(named[0])
    return [int(name in named) for name in classes]


def png_of(photo: Path, stored_px: Sequence[int]) -> bytes:
    """The photo as the model's training images were stored (``oneshui.data.pack``).

    Raises:
        DataError: it cannot be decoded or not be shown rightly.
    """
    height, width = stored_px
    try:
        pixels = decode(photo, height, width)
    except DataError as error:
        raise DataError(
            f"{error} Hand in another photo, or the same one saved again as a JPEG or 8-bit PNG."
        ) from error
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()
