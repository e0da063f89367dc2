"""A real request: somebody's photo, the model that knew them, and what was packed before the data was deleted."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image, ImageOps

from oneshui.config import method_spec, training_data_paths
from oneshui.errors import ConfigError, DataError
from oneshui.files import read_header
from oneshui.methods import needs_of
from oneshui.schemas import REQUEST, write_table
from oneshui.stages.unlearn import unlearn

#: identity of somebody whose place in the dataset nobody knows any more; no dataset has it
UNKNOWN = -1


def forget(
    model_path: str | Path, photos: Sequence[str | Path], artefact_path: str | Path | None, output_path: str | Path, *,
    config: Mapping[str, Any], method: str, labels: Sequence[str], gpus: int, threads: int,
) -> dict[str, Any]:  # fmt: skip
    """Unlearn the people on ``photos``, one photo each, and return the header of the new model.

    Photos are turned upright and squashed to the size of the images that the model was trained on; they must be cropped
    and aligned as those were. They are not kept.

    Args:
        model_path: a model that the workflow trained.
        photos: image files.
        artefact_path: what ``method`` kept of the training data of this very model; None if it keeps nothing.
        output_path: the unlearned model.
        config: a configuration; its entry of ``method`` counts, with the overrides of the model's dataset and of the
            request size that the artefact was made for (without one: of the number of photos).
        method: name in the configuration.
        labels: one per photo: a class name; or names of the attributes that the person has, separated by commas.
        gpus: 1 to compute on the visible GPU.
        threads: of the CPU.

    Raises:
        ConfigError: the method needs the training data, or does not go with the artefact.
        DataError: a photo or a label is unusable.
        OneShuiError: what ``oneshui.stages.unlearn.unlearn`` raises.
    """
    header = read_header(model_path)
    if "model_spec" not in header:
        raise DataError(f"{model_path} is not a model. Name a file under results/models.")
    size = 0 if artefact_path is None else int(read_header(artefact_path)["n"])
    dataset, n = str(header["dataset"]), size or len(photos)
    spec = method_spec(config["methods"], method, dataset, n)
    _check_artefact(config, method, artefact_path)
    task, stored_px = header["model_spec"]["task"], header["spec"]["dataset"]["stored_px"]
    if not photos or len(labels) != len(photos):
        raise DataError(
            f"{len(photos)} photos and {len(labels)} labels, needed: at least one photo, and a label for each"
        )
    request = pd.DataFrame({
        "request_rank": range(len(photos)), "identity": UNKNOWN,
        "label": [label_of(label, task) for label in labels], "image": [png_of(photo, stored_px) for photo in photos],
    })  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="oneshui-") as folder:
        path = Path(folder) / "request.parquet"
        write_table(
            path, request, REQUEST, {"task": task["kind"], "classes": list(task["classes"]), "dataset": dataset}
        )
        unlearn(
            model_path, path, artefact_path, output_path, method=method, origin="pretrain", dataset=dataset, n=n,
            seed=int(header["seed"]), spec=spec, gpus=gpus, threads=threads, withheld=training_data_paths(config),
        )  # fmt: skip
    return read_header(output_path)


def _check_artefact(config: Mapping[str, Any], method: str, artefact_path: str | Path | None) -> None:
    needs = needs_of(config["methods"][method])
    if needs == "data":
        raise ConfigError(
            f"{method} needs the training data, which no request can be served with. Choose another method."
        )
    if (needs == "artefact") != (artefact_path is not None):
        advice = "Name it with --artefact (results/artefacts/...)" if needs == "artefact" else "Leave --artefact out"
        raise ConfigError(f"{method} needs {needs} beside the model and the photo. {advice}.")


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


def png_of(photo: str | Path, stored_px: Sequence[int]) -> bytes:
    """The photo as the model's training images were stored."""
    height, width = stored_px
    try:
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{photo} cannot be decoded ({error}). Name a JPEG or PNG file.") from error
    if upright.size != (width, height):
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    upright.save(buffer, "PNG")
    return buffer.getvalue()
