"""Everything that can be wrong with a request, a bundle or what is to be packed: one clear message each."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from tests.unit.bundles.conftest import ANN, BOB, asks
from tests.unit.bundles.objects import OTHERS, method

from oneshui.__main__ import REFUSED, main
from oneshui.bundles.bundle import Key, write_note
from oneshui.models import load_model, save_model

ROOT = Path(__file__).parents[3]
CONFIG = "c.yaml"


class Bad(NamedTuple):
    """One bad input.

    Attributes:
        words: the command.
        message: what the message must say.
        spoil: makes it bad, in a folder with whole bundles, their key and the photos.
        slow: it is found in the isolated process, which takes seconds.
    """

    words: list[str]
    message: str
    spoil: Callable[[Path], Any] = lambda folder: None
    slow: bool = False


def ask(*words: str, bundle: str = "ssd", out: str = "new", key: str = "secret.key") -> list[str]:
    return ["forget", bundle, *asks(ANN), "--out", out, "--key", key, *words]


def pack(*words: str, kind: str = "ssd") -> list[str]:
    return ["pack", "--out", "b", "--configfile", CONFIG, "--method", kind, *words]


def note_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "bundle.json").read_text(encoding="utf-8")))


def says(**entries: Any) -> Callable[[Path], None]:
    """Change what a bundle says of itself."""
    return lambda folder: _write(folder / "ssd", {**note_of(folder / "ssd"), **entries})


def lacks(name: str) -> Callable[[Path], None]:
    return lambda folder: _write(folder / "ssd", {k: v for k, v in note_of(folder / "ssd").items() if k != name})


def _write(bundle: Path, note: dict[str, Any]) -> None:
    (bundle / "bundle.json").write_text(json.dumps(note), encoding="utf-8")


def other_byte(folder: Path) -> None:
    path = folder / "ssd/model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def pipe(folder: Path) -> None:
    (folder / "ssd/model.safetensors").unlink()
    os.mkfifo(folder / "ssd/model.safetensors")


def half(folder: Path) -> None:
    photo = folder / "asks_02.png"
    photo.write_bytes(photo.read_bytes()[:300])


def destroy(folder: Path) -> None:
    """Make a whole bundle, sealed and all, of weights that are not finite."""
    path = folder / "ssd/model.safetensors"
    checkpoint = load_model(path, torch.device("cpu"))
    with torch.no_grad():
        next(checkpoint.model.parameters()).fill_(float("inf"))
    save_model(path, checkpoint.model, checkpoint.spec, {"stored_px": [32, 32]})
    write_note(folder / "ssd", note_of(folder / "ssd"), Key.read(folder / "secret.key"))


def demo_config(folder: Path) -> None:
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
    (folder / CONFIG).write_text(yaml.safe_dump({**config, "methods": {**config["methods"], **_methods()}}))


def methods_only(folder: Path) -> None:
    (folder / CONFIG).write_text(yaml.safe_dump({"methods": _methods()}))


def _methods() -> dict[str, Any]:
    params = {
        kind: {k: v for k, v in method(kind).items() if k != "kind"} for kind in ("jit", "scrub", "identity_edits")
    }
    made: dict[str, Any] = {kind: {"kind": kind, "params": values} for kind, values in params.items()}
    return made | {"turns": {"of": "jit", "in_turn": 1}}


OWN = ["--weights", "w.safetensors", "--model", "test_resnet", "--images", "photos"]
STRANGER = OTHERS[0]
CASES: dict[str, Bad] = {
    # the bundle
    "no bundle": Bad(
        ask(bundle="nowhere"), "nowhere is not a bundle: there is no bundle.json in it. `oneshui pack` makes one."
    ),
    "a model in place of a bundle": Bad(ask(bundle="ssd/model.safetensors"), "model.safetensors is not a bundle"),
    "no JSON": Bad(ask(), "bundle.json cannot be read", lambda folder: (folder / "ssd/bundle.json").write_text("{")),
    "an entry is missing": Bad(ask(), "bundle.json has no seed. Restore it from a copy.", lacks("seed")),
    "an entry of another type": Bad(ask(), "bundle.json has people = [], allowed: a mapping", says(people=[])),
    "people who are names": Bad(ask(), "people who are no hashes with numbers", says(people={"Ann": 3})),
    "a newer version": Bad(
        ask(),
        "was written by a newer version (format 2, oneshui 9.0); this one, ",
        says(format=2, oneshui="9.0", people=0),
    ),
    "bundle.json was altered": Bad(ask(), "was changed after it was sealed", says(served=7)),
    "the artefact is missing": Bad(
        ask(),
        "ssd lacks artefact.safetensors (No such file",
        lambda folder: (folder / "ssd/artefact.safetensors").unlink(),
    ),
    "the weights were altered": Bad(ask(), "model.safetensors was changed or cut short: its SHA-256 is ", other_byte),
    "the artefact of another bundle": Bad(
        ask(),
        "artefact.safetensors was changed or cut short",
        lambda folder: shutil.copy(folder / "metaunlearn/artefact.safetensors", folder / "ssd/artefact.safetensors"),
    ),
    "weights that are not finite": Bad(ask(), "has weights that are not finite", destroy, slow=True),
    "a pipe in place of the weights": Bad(ask(), "ssd lacks model.safetensors (it is not a regular file)", pipe),
    # the key
    "no key": Bad(["forget", "ssd", *asks(ANN), "--out", "new"], "the key of ssd is not beside it ("),
    "a key that is not there": Bad(ask(key="lost.key"), "lost.key is not a key of bundles (No such file"),
    "a key that is none": Bad(ask(key="asks_00.png"), "asks_00.png is not a key of bundles (it does not hold 64 hex"),
    "the key of another bundle": Bad(
        ask(key="other.key"),
        "the key is not that of ssd: it has the fingerprint ",
        lambda folder: Key.new().save(folder / "other.key"),
    ),
    # who asks
    "two photos for one name": Bad(
        ask("--photo", f"{ANN}=asks_00.png"), f"{ANN!r} has two photos, asks_02.png and asks_00.png. Hand in one"
    ),
    "two spellings of one name": Bad(ask("--photo", f" {ANN}=asks_00.png"), f"{ANN!r} has two photos"),
    "one photo for two people": Bad(ask("--photo", f"{BOB}=asks_02.png"), "asks_02.png is the photo of both "),
    "a name that is none": Bad(ask("--photo", "nan=asks_00.png"), "the name 'nan' is none"),
    "a name that is no text": Bad(ask("--photo", "\udcff=asks_00.png"), "the name '\\udcff' is none"),
    "somebody unknown": Bad(
        ask("--photo", f"{STRANGER}=asks_00.png"),
        f"ssd does not know {STRANGER!r}: the name is misspelled, the model was never trained on them, or they were "
        "forgotten already. For somebody unknown ssd does the same as for anybody: it looks at photo and label. "
        "Correct the name, or serve the request all the same: --allow-unknown.",
    ),
    # the photos
    "a photo that is not there": Bad(ask("--photo", f"{BOB}=lost.png"), "lost.png cannot be read (No such file"),
    "a folder in place of a photo": Bad(ask("--photo", f"{BOB}=ssd"), "ssd cannot be read (it is not a regular file)"),
    "not an image": Bad(
        ask(), "asks_02.png cannot be decoded (", lambda folder: (folder / "asks_02.png").write_text("no"), slow=True
    ),
    "half an image": Bad(ask(), "Hand in another photo, or the same one saved again as a JPEG", half, slow=True),
    # the labels
    "an unknown label": Bad(
        ask("--label", f"{ANN}=star"), "label 'star' is unknown to the model, allowed: circle, square, triangle"
    ),
    "a label of somebody who does not ask": Bad(
        ask("--label", f"{BOB}=square"), f"there is a label of {BOB!r}, but no photo"
    ),
    "two labels": Bad(ask("--label", f"{ANN}=square", "--label", f"{ANN}=circle"), "has two labels"),
    "two labels of one person in two spellings": Bad(
        ask("--label", f"{ANN}=square", "--label", f" {ANN}=circle"), "has two labels, 'square' and 'circle'"
    ),
    # where it goes
    "no output": Bad(
        ["forget", "ssd", *asks(ANN), "--key", "secret.key"], "no place for the new bundle. Name it: --out"
    ),
    "an output that is there": Bad(
        ask(out="jit"), "jit is there, and nothing is replaced. Name another place: --out NEW"
    ),
    "an output in a file": Bad(ask(out="asks_00.png/new"), "asks_00.png cannot be used ("),
    "a receipt that is there": Bad(
        ask(),
        "new-receipt.json is there, and nothing is replaced",
        lambda folder: (folder / "new-receipt.json").touch(),
    ),
    "a receipt of another kind": Bad(ask("--receipt", "r.txt"), "the receipt r.txt must end in .json"),
    "an output in the old bundle": Bad(ask(out="ssd/new"), "ssd/new would lie in the bundle ssd. Name a place outside"),
    "a receipt in the old bundle": Bad(ask("--receipt", "ssd/r.json"), "ssd/r.json would lie in the bundle ssd"),
    "a receipt in the new bundle": Bad(ask("--receipt", "new/r.json"), "new/r.json would lie in the bundle new"),
    # verify
    "a receipt that is none": Bad(["verify", "ssd/bundle.json", "ssd", "jit"], "is not a receipt: it has no at"),
    "no receipt": Bad(["verify", "lost.json", "ssd", "jit"], "lost.json is not a receipt (No such file"),
    # pack
    "nothing to pack": Bad(
        pack(), "it is not clear what to pack (given: nothing). A run of the workflow needs --dataset; a model of your "
    ),
    "two things to pack": Bad(
        pack("--dataset", "d", "--model", "m"), "it is not clear what to pack (given: --dataset, --model)"
    ),
    "options that are no JSON": Bad(
        pack(*OWN, "--model-options", "depth=6", kind="jit"), "--model-options 'depth=6' is no JSON", methods_only
    ),
    "a configuration that is not there": Bad(pack(*OWN), "c.yaml cannot be read (No such file"),
    "a configuration without methods": Bad(
        pack(*OWN), "c.yaml has no methods. Give it an entry", lambda folder: (folder / CONFIG).write_text("ssd: {}")
    ),
    "a method that is not in it": Bad(
        pack(*OWN), "c.yaml: method 'ssd' is not in it; it has: identity_edits, jit", methods_only
    ),
    "weights that are not there": Bad(pack(*OWN, kind="jit"), "the raw folder photos does not exist", methods_only),
    "fold models for a model of one's own": Bad(
        pack(*OWN, kind="identity_edits"),
        "identity_edits needs fold models, which are trained like yours",
        methods_only,
    ),
    "a run that is not there": Bad(
        pack("--dataset", "demo", "--seed", "0", kind="jit"),
        "the model of the run, results/models/demo/seed0/pretrain.safetensors, is not there. Make it while the data is "
        "there: snakemake --cores all --configfile c.yaml -- results/models/demo/seed0/pretrain.safetensors",
        demo_config,
    ),
    "no seed": Bad(
        pack("--dataset", "demo", kind="jit"), "the configuration has the seeds 0, 1, 2. Name one: --seed.", demo_config
    ),
    "an unknown dataset": Bad(
        pack("--dataset", "dmeo", "--seed", "0", kind="jit"),
        "c.yaml: dataset 'dmeo' is not in it; it has: demo",
        demo_config,
    ),
    "a method in turn": Bad(
        pack(*OWN, kind="turns"), "turns is jit, in turn. Pack jit, and forget people one after the other", methods_only
    ),
    "a method that needs the data": Bad(
        pack("--dataset", "demo", "--seed", "0", kind="scrub"), "scrub needs the training data to unlearn", demo_config
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=[pytest.mark.slow] * case.slow) for name, case in CASES.items()]
)
def test_a_bad_input_is_one_clear_message_and_nothing_is_written(
    case: Bad, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.spoil(copied)
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    monkeypatch.chdir(copied)
    assert main(case.words) == REFUSED
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert lines[-1].startswith("oneshui: ") and case.message in lines[-1], told.err
    assert "Traceback" not in told.err and not told.out
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()} == before
