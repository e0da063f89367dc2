"""Every way in which a file of unknown hands comes in: a small whole file of each kind, and what reads it."""

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from oneshui.bundles.bundle import FORMAT, Key, note_of
from oneshui.bundles.receipt import read_receipt
from oneshui.config import TrainSpec
from oneshui.data.layouts import read_annotations
from oneshui.data.pack import decode
from oneshui.data.splits import check_splits
from oneshui.data.store import append_note, open_store, read_note
from oneshui.data.support import read_request
from oneshui.files import HEADER_KEY, read_header
from oneshui.methods import make_method
from oneshui.methods.base import Artefact
from oneshui.models import ModelSpec, build_model, load_model, save_model
from oneshui.planning.checks import check
from oneshui.resume import Resume
from oneshui.schemas import (
    ATTACK,
    FEATURES,
    IDENTITIES,
    INDEX,
    METRICS,
    REQUEST,
    SCORES,
    SPLITS,
    Schema,
    read_table,
    write_table,
)
from oneshui.sets import ImageSet, InputSpec, Support
from oneshui.stages.rows import read_features, read_labels, read_scores
from oneshui.tasks import Task
from oneshui.training import Trainer
from oneshui.yaml_files import read_yaml

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
TASK = Task("classification", ("young", "old"))
OPTIONS = {"channels": [4, 4, 4, 4], "stem_width": 4}
SPEC = ModelSpec("test_resnet", TASK, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), OPTIONS)
INPUT = InputSpec(16, 0.5, 0.25)
STORED_PX = [8, 6]
LABELS = {"task": TASK.kind, "classes": list(TASK.classes)}
SSD = {"kind": "ssd", "fisher": "image", "selection": 1.0, "dampening": 1.0, "batch_size": 2, "micro_batch": 2}
TRAINING = {
    "model": "test_resnet", "model_options": OPTIONS, "init_weights": "random", "input_px": 16, "mean": 0.5,
    "std": 0.25, "epochs": 2, "warmup_epochs": 0, "batch_size": 2, "optimiser": "sgd", "lr": 0.01, "momentum": 0.9,
    "weight_decay": 0.0, "crop_scale": [0.5, 1.0], "precision": "fp32", "revision": 1,
}  # fmt: skip


class Reader(NamedTuple):
    """One kind of file.

    Attributes:
        name: of the file that is read.
        whole: makes a small file that is read without complaint.
        read: reads it, as whoever uses such files does first.
    """

    name: str
    whole: Callable[[], bytes]
    read: Callable[[Path], Any]


def written(write: Callable[[Path], Any]) -> bytes:
    """Return the bytes of the file that ``write`` makes."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


# ---- tables


def png(height: int = 8, width: int = 6, seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def half(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.float16) for row in rows]


@cache
def frames() -> dict[str, tuple[Schema, pd.DataFrame, dict[str, Any]]]:
    """A small table of each kind, with its metadata."""
    ids = {"image_id": [0, 1, 2]}
    people = {**ids, "identity": [0, 0, 1]}
    rank = pd.array([0, 0, None], dtype="Int16")
    run = {"dataset": "toy", "n": 1, "seed": 0, "origin": "pretrain", "method": "jit", "split": "test"}
    return {
        "index": (
            INDEX,
            pd.DataFrame({
                **ids, "path": ["a.png", "b/c.png", "d.png"], "identity": [0, 0, 1], "identity_name": ["p", "p", "q"],
                "label": [0, 1, 1], "width": 6, "height": 8, "duplicate_group": [0, 1, 2],
                "content": np.array([1, 2, 2**63], dtype=np.uint64),
            }),
            {**LABELS, "dataset": "toy", "spec": "0" * 16, "pictures": "1" * 16},
        ),
        "splits": (
            SPLITS,
            pd.DataFrame({**people, "role": ["train", "train", "test"], "request_rank": rank,
                          "is_support": [True, False, False]}),
            {"content": "2" * 16, "dataset": "toy", "seed": 0},
        ),
        "request": (
            REQUEST,
            pd.DataFrame({"request_rank": [0, 1], "identity": [4, -1], "label": [0, 1],
                          "image": [png(), png(seed=1)]}),
            {**LABELS, "dataset": "toy", "n": 2},
        ),
        "scores": (
            SCORES,
            pd.DataFrame({"image_id": [0, 1, 0], "view": [0, 0, 1], "loss": [0.5, 0.1, 2.0], "p_true": 0.5,
                          "logits": [*half([1, -2], [3, 4]), None]}),
            {**LABELS, "queries": {"views": 1}, "model": {"splits": "2" * 16}},
        ),
        "features": (
            FEATURES,
            pd.DataFrame({**ids, "features": half([1, 2], [3, 4], [5, np.inf])}),
            {**LABELS, "model": {}, "queries": {}},
        ),
        "metrics": (METRICS, pd.DataFrame({**run, "metric": ["accuracy", "loss"], "value": [0.5, np.nan]}), {}),
        "attack": (
            ATTACK,
            pd.DataFrame({**people, "is_member": [True, False, True], "rmia": [0.5, 0.0, 1.0],
                          "loss_score": [-1.0, 0.0, -3.0]}),
            {**run, "row": "pretrain/jit", "blown_up": ""},
        ),
        "identities": (
            IDENTITIES,
            pd.DataFrame({"identity": [0, 1], "set": ["forget", "retain"], "n_images": [2, 1], "measure": "accuracy",
                          "value": 0.5, "pretrain": 0.5, "retrain": 0.5, "distance": 1.0}),
            {**run, "row": "pretrain/jit", "blown_up": False},
        ),
    }  # fmt: skip


def table(kind: str) -> bytes:
    schema, frame, meta = frames()[kind]
    return written(lambda path: write_table(path, frame, schema, meta))


def read_splits(path: Path) -> Any:
    found, meta = read_table(path, SPLITS)
    check_splits(found, frames()["index"][1], path, "index.parquet")
    return found, meta


def read_index(path: Path) -> Any:
    return read_labels(path), read_table(path, INDEX)


def as_request(path: Path) -> Support:
    return read_request(path, TASK, INPUT, CPU, stored_px=STORED_PX)


def manifest_parquet() -> bytes:
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "identity": ["p", "q"], "label": ["x", "y"]})
    return written(lambda path: frame.to_parquet(path))


# ---- weights


@cache
def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(SPEC)


HEADER = {
    "dataset": "toy", "n": None, "seed": 0, "role": "pretrain", "splits": "2" * 16, "pictures": "1" * 16,
    "spec": {"dataset": {"stored_px": STORED_PX}}, "weights": None, "training": {},
}  # fmt: skip


def model() -> bytes:
    return written(lambda path: save_model(path, network(), SPEC, HEADER))


def initial_weights() -> bytes:
    return written(lambda path: save_file({k: v.contiguous() for k, v in network().state_dict().items()}, path))


def read_initial_weights(path: Path) -> Any:
    return build_model(SPEC, weights=path)


def artefact() -> bytes:
    kept = Artefact({name: torch.ones_like(value) for name, value in network().named_parameters()}, {"images": 3})
    header = {"model": "3" * 64, "spec": SSD, "n": 2, "seed": 0, "seconds": 1.0, "peak_mb": 1.0}
    return written(lambda path: kept.save(path, header))


def read_artefact(path: Path) -> Any:
    kept, header = Artefact.load(path, CPU)
    support = Support(torch.zeros(1, 3, 16, 16), torch.tensor([1]), torch.tensor([4]), TASK)
    return header, make_method(SSD).unlearn(network(), support, kept, seed=0)


def trainer(sidecar: Path) -> Trainer:
    images = ImageSet(
        torch.zeros(4, 3, 8, 6, dtype=torch.uint8), torch.arange(4), torch.tensor([0, 1, 0, 1]), torch.arange(4), INPUT,
        TASK, CPU,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build_model(SPEC)
    resume = Resume(sidecar, "f", CPU)
    return Trainer(made, TrainSpec.from_dict(TRAINING), images, images, stream=("toy",), resume=resume)


def sidecar() -> bytes:
    return written(lambda path: trainer(path).run())


def read_sidecar(path: Path) -> Any:
    """A resume state that cannot be used is a warning: training starts from the beginning."""
    return trainer(path)._restore()


# ---- bundles

SECRET = Key(bytes(range(32)))


def bundle_note() -> bytes:
    digest, model = (
        "5" * 64,
        {"architecture": "test_resnet", "input_px": 8, "task": {"kind": TASK.kind, "classes": list(TASK.classes)}},
    )
    return json.dumps(SECRET.sealed({
        "format": FORMAT, "oneshui": "0.1.0", "versions": {"torch": "2"}, "source": {"dataset": "toy"}, "model": model,
        "stored_px": STORED_PX, "method": "ssd", "spec": SSD, "seed": 7, "key": SECRET.fingerprint,
        "people": {SECRET.person("p"): 0}, "served": 0,
        "files": {"model.safetensors": digest, "artefact.safetensors": digest},
    })).encode()  # fmt: skip


def receipt() -> bytes:
    answer = {"answer": "old", "sure_of_label": 0.5}
    files = {"bundle.json": "6" * 64, "model.safetensors": "5" * 64}
    return json.dumps(SECRET.sealed({
        "format": FORMAT, "at": "2026-01-01T00:00:00+00:00", "seconds": 1.5, "isolation": "landlock", "method": "ssd",
        "spec": SSD, "old": files, "new": files, "moved": 0.1, "people_before": 2, "people_after": 1,
        "no_longer_served": 0, "stays": "", "outcome": "served", "meaning": "", "diagnostics": {"relative_step": 0.1},
        "people": [{"person": SECRET.person("p"), "known": True, "label_from": "given", "label": "old",
                    "before": answer, "after": answer, "numbers_removed": 0}],
    })).encode()  # fmt: skip


# ---- stores and configurations


def store() -> bytes:
    def write(path: Path) -> None:
        with open(path, "wb") as file:
            np.save(file, np.arange(3 * 3 * 8 * 6, dtype=np.uint8).reshape(3, 3, 8, 6))
        append_note(path, {"pictures": "1" * 16, "turned_or_transparent": 0})

    return written(write)


def read_store(path: Path) -> Any:
    return np.array(open_store(path)), read_note(path)


@cache
def configuration() -> bytes:
    """The demo's, with no method but one, to be quick."""
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    config["methods"] = (
        {"jit": config["methods"]["jit"]} if "jit" in config["methods"] else dict(list(config["methods"].items())[:1])
    )
    name = next(iter(config["methods"]))
    for entry in config["tables"].values():
        entry["methods"] = [name]
        entry.get("published", {}).pop("variants", None)
    config["selection"]["grids"] = {}
    return yaml.safe_dump(config, sort_keys=False).encode()


def read_configuration(path: Path) -> Any:
    config = read_yaml(path)
    check(config, path.name)
    return config


def in_folder(layout: str, **options: Any) -> Callable[[Path], Any]:
    return lambda path: read_annotations(layout, path.parent, options)


MANIFEST = "path,identity,label\na.png,p,x\nb.png,Zo\xeb,y\n".encode()

#: kind -> how it comes in
READERS: dict[str, Reader] = {
    "manifest": Reader("manifest.csv", lambda: MANIFEST, in_folder("manifest")),
    "manifest as parquet": Reader("m.parquet", manifest_parquet, in_folder("manifest", file="m.parquet")),
    "picture": Reader("a.png", png, lambda path: decode(path, 8, 6)),
    "index": Reader("index.parquet", lambda: table("index"), read_index),
    "splits": Reader("splits.parquet", lambda: table("splits"), read_splits),
    "request": Reader("request.parquet", lambda: table("request"), as_request),
    "scores": Reader("scores.parquet", lambda: table("scores"), lambda path: read_scores(path, 2)),
    "features": Reader("features.parquet", lambda: table("features"), read_features),
    "metrics": Reader("metrics.parquet", lambda: table("metrics"), lambda path: read_table(path, METRICS)),
    "attack": Reader("attack.parquet", lambda: table("attack"), lambda path: read_table(path, ATTACK)),
    "identities": Reader("identities.parquet", lambda: table("identities"), lambda path: read_table(path, IDENTITIES)),
    "model": Reader("model.safetensors", model, lambda path: load_model(path, CPU)),
    "header": Reader("model.safetensors", model, read_header),
    "initial weights": Reader("weights.safetensors", initial_weights, read_initial_weights),
    "artefact": Reader("artefact.safetensors", artefact, read_artefact),
    "resume state": Reader("model.safetensors.resume", sidecar, read_sidecar),
    "store": Reader("images.npy", store, read_store),
    "configuration": Reader("config.yaml", configuration, read_configuration),
    "bundle": Reader("bundle.json", bundle_note, lambda path: note_of(path.parent)),
    "receipt": Reader("receipt.json", receipt, read_receipt),
    "key": Reader("bundle.key", lambda: f"{SECRET.secret.hex()}\n".encode(), Key.read),
}


# ---- changing what a file says


def split_header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tensors' bytes of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, body: bytes) -> bytes:
    """Return a safetensors file of a header, text or not, and bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def our_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return a safetensors file with our part of its header changed."""
    header, body = split_header(data)
    ours = json.loads(header["__metadata__"][HEADER_KEY])
    change(ours)
    header["__metadata__"] = {HEADER_KEY: json.dumps(ours)}
    return with_header(header, body)
