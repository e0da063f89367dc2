"""Requests: what a bundle without the people looks like, what is refused, and what is said."""

import errno
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.unit.bundles.conftest import ANN, BOB, World, asks
from tests.unit.bundles.objects import OTHERS, OWNERS, method, write_model, write_objects
from tests.unit.bundles.test_pack import spellings

import oneshui
from oneshui.__main__ import DONE, NOT_FORGOTTEN, NOT_VERIFIED, REFUSED, main
from oneshui.bundles import serve as serving
from oneshui.bundles.bundle import Bundle, Key, number_of
from oneshui.bundles.forget import GIVEN, PREDICTED, label_of
from oneshui.bundles.receipt import read_receipt
from oneshui.errors import ArtefactError, CheckpointError, DataError, OneShuiError
from oneshui.files import read_header, write_text
from oneshui.methods import METHODS, make_method
from oneshui.methods.base import Artefact
from oneshui.models import load_model
from oneshui.sets import Support
from oneshui.stages.images import input_of

CPU = torch.device("cpu")
forgetting = importlib.import_module("oneshui.bundles.forget")  # `oneshui.bundles.forget.forget` has its name


def run(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    return main(list(words))


# ---- labels


@pytest.mark.parametrize(
    ("label", "task", "number"),
    [
        ("Hat, Smiling", {"kind": "multilabel", "classes": ["Smiling", "Young", "Hat"]}, [1, 0, 1]),
        ("", {"kind": "multilabel", "classes": ["Smiling", "Young", "Hat"]}, [0, 0, 0]),
        ("e\u0301te\u0301", {"kind": "classification", "classes": ["hiver", "\u00e9t\u00e9"]}, 1),
        ("7-12 years old", {"kind": "classification", "classes": ["0-6 years old", "7-12 years old"]}, 1),
    ],
)
def test_labels_by_name(label: str, task: dict[str, object], number: int | list[int]) -> None:
    assert label_of(label, task) == number


@pytest.mark.parametrize(
    ("label", "kind"), [("Hat,Beard", "multilabel"), ("", "classification"), ("1", "classification")]
)
def test_unknown_labels_name_the_known_ones(label: str, kind: str) -> None:
    with pytest.raises(DataError, match="is unknown to the model, allowed: Smiling, Hat"):
        label_of(label, {"kind": kind, "classes": ["Smiling", "Hat"]})


@pytest.mark.parametrize(
    ("photos", "labels", "message"),
    [
        ("asks_00.png", {}, "nobody can tell whose photo asks_00.png is"),
        ({42: "asks_02.png"}, {}, "the name 42 is none"),
        ({ANN: "asks_02.png"}, {ANN: 1}, "label 1 is no text, allowed: circle, square, triangle"),
    ],
)
def test_values_of_the_wrong_kind_from_python(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Any, labels: Any, message: str
) -> None:
    monkeypatch.chdir(world.folder)
    with pytest.raises(OneShuiError, match=message):
        oneshui.forget("ssd", photos, labels=labels, out=tmp_path / "new", key="secret.key", cpu=True)


# ---- what is done


def served(world: World, kind: str, out: Path, *owners: str, dry_run: bool = False, **changes: Any) -> dict[str, Any]:
    """Serve a request in this process, as the isolated one does, and return what it says."""
    bundle = Bundle.read(world.bundle(kind))
    key = Key.read(world.folder / "secret.key")
    photos = [{"path": str(world.photos[o]), "number": number_of(key.person(o)), "label": None} for o in owners]
    serving.serve(
        str(bundle.model), str(bundle.artefact) if bundle.artefact else None, photos, str(out),
        spec={**bundle.note["spec"], **changes}, stored_px=bundle.note["stored_px"], seed=bundle.note["seed"],
        natural=[each["number"] for each in photos], dry_run=dry_run, gpus=0, threads=1, isolation="none",
    )  # fmt: skip
    return dict(json.loads((out / "answers.json").read_text()))


def by_hand(world: World, kind: str, *owners: str) -> dict[str, torch.Tensor]:
    """The weights that the method gives, asked directly."""
    bundle, key = Bundle.read(world.bundle(kind)), Key.read(world.folder / "secret.key")
    checkpoint = load_model(bundle.model, CPU)
    pixels = [np.asarray(Image.open(world.photos[o]).resize((32, 32), Image.Resampling.BILINEAR)) for o in owners]
    images = input_of(checkpoint.spec).prepare(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    with torch.no_grad():
        labels = checkpoint.model(images).argmax(1)
    numbers = torch.tensor([number_of(key.person(o)) for o in owners])
    artefact = Artefact.load(bundle.artefact, CPU)[0] if bundle.artefact else None
    support = Support(images, labels, numbers, checkpoint.spec.task)
    made = make_method(bundle.note["spec"]).unlearn(checkpoint.model, support, artefact, seed=bundle.note["seed"])
    return dict(made.model.state_dict())


@pytest.mark.parametrize("kind", ["ssd", "jit", pytest.param("pgu", marks=pytest.mark.slow), "metaunlearn"])
def test_the_weights_are_those_of_the_method_on_the_photos_as_training_images_are_decoded(
    world: World, tmp_path: Path, kind: str
) -> None:
    said = served(world, kind, tmp_path / "new", ANN, BOB)
    found, wanted = load_file(tmp_path / "new/model.safetensors"), by_hand(world, kind, ANN, BOB)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], value) for name, value in wanted.items())
    before = load_file(world.bundle(kind) / "model.safetensors")
    floats = [name for name, value in before.items() if value.is_floating_point()]
    step = sum((found[n].double() - before[n].double()).square().sum() for n in floats)
    size = sum(before[n].double().square().sum() for n in floats)
    assert said["moved"] == pytest.approx(float((step / size).sqrt())) and said["moved"] > 0


def test_answers_before_and_after_are_those_of_the_two_models(world: World, tmp_path: Path) -> None:
    said = served(world, "ssd", tmp_path / "new", ANN)
    (told,) = said["people"]
    for when, path in (("before", world.bundle("ssd")), ("after", tmp_path / "new")):
        checkpoint = load_model(path / "model.safetensors", CPU)
        pixels = np.asarray(Image.open(world.photos[ANN]).resize((32, 32), Image.Resampling.BILINEAR))
        with torch.no_grad():
            logits = checkpoint.model(
                input_of(checkpoint.spec).prepare(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])
            )[0]
        classes = checkpoint.spec.task.classes
        assert told[when]["answer"] == classes[int(logits.argmax())]
        sure = logits.softmax(0)[classes.index(told["label"])]
        assert told[when]["sure_of_label"] == pytest.approx(float(sure), rel=1e-5)
    assert told["label"] == told["before"]["answer"]


def test_nothing_of_the_people_is_left_in_the_artefact_and_the_others_keep_theirs(world: World, tmp_path: Path) -> None:
    served(world, "metaunlearn", tmp_path / "new", ANN, BOB)
    key = Key.read(world.folder / "secret.key")
    before, after = (
        load_file(path / "artefact.safetensors") for path in (world.bundle("metaunlearn"), tmp_path / "new")
    )
    gone = {number_of(key.person(owner)) for owner in (ANN, BOB)}
    assert set(after["identities"].tolist()) == set(before["identities"].tolist()) - gone
    for name, value in before.items():
        if name in ("identities", "phi.embed.weight"):
            kept = [i for i, number in enumerate(before["identities"].tolist()) if number not in gone]
            assert torch.equal(after[name], value[kept])
        else:
            assert torch.equal(after[name], value)
    table = after["phi.embed.weight"]
    lost = [before["identities"].tolist().index(number) for number in gone]
    assert not any((table == row).all(1).any() for row in before["phi.embed.weight"][lost])
    header = read_header(tmp_path / "new/artefact.safetensors")
    assert header["model"] == Bundle.read(world.bundle("ssd")).note["files"]["model.safetensors"] or header["model"]


def test_when_everybody_was_forgotten_the_mean_entry_is_missed_by_name(world: World, tmp_path: Path) -> None:
    served(world, "metaunlearn", tmp_path / "new", *OWNERS)
    note, new = Bundle.read(world.bundle("metaunlearn")).note, tmp_path / "new"
    photo = {"path": str(world.photos[ANN]), "number": 1, "label": None}
    with pytest.raises(ArtefactError, match="everybody whom the artefact knew was forgotten, so there is no mean"):
        serving.serve(
            str(new / "model.safetensors"), str(new / "artefact.safetensors"), [photo], str(tmp_path / "next"),
            spec=note["spec"], stored_px=note["stored_px"], seed=note["seed"], natural=[1], dry_run=False, gpus=0,
            threads=1, isolation="none",
        )  # fmt: skip


def test_a_dry_run_unlearns_nothing(world: World, tmp_path: Path) -> None:
    said = served(world, "ssd", tmp_path / "new", ANN, dry_run=True)
    assert said.keys() == {"isolation", "people"} and [p.name for p in (tmp_path / "new").iterdir()] == ["answers.json"]


def test_a_model_that_would_be_destroyed_is_not_written(world: World, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the model would be destroyed: its weights or answers are not finite"):
        served(world, "jit", tmp_path / "new", ANN, lr=1e30)
    assert not list((tmp_path / "new").iterdir())


def test_people_are_summed_in_the_order_of_their_names(world: World, tmp_path: Path) -> None:
    """In a bundle they stand in the order of their hashes, and a sum depends on the order in its last bit."""
    artefact = Artefact({"identities": torch.tensor([5, 7, 9, 11]), "phi.embed.weight": torch.eye(4)}, {})
    unlearner = make_method(method("metaunlearn"))
    found = serving._in_order(unlearner, artefact, [9, 5, 3])
    assert found is not None and found.tensors["identities"].tolist() == [9, 5, 7, 11]
    assert found.tensors["phi.embed.weight"].argmax(1).tolist() == [2, 0, 1, 3]
    assert serving._in_order(unlearner, artefact, [5, 9, 11]) is artefact


# ---- the command, with a process of its own


@pytest.mark.slow
def test_two_requests_one_after_the_other(copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(copied)
    key, old = Key.read(copied / "secret.key"), copied / "metaunlearn"
    assert (
        main(["forget", "metaunlearn", *asks(ANN), "--label", f"{ANN}=square", "--out", "one", "--key", "secret.key"])
        == 0
    )
    assert main(["forget", "one", *asks(BOB), "--out", "two", "--json", "--key", "secret.key"]) in (DONE, NOT_FORGOTTEN)
    printed = capsys.readouterr().out
    receipt = json.loads(printed[printed.index("{") :])
    assert receipt == read_receipt("two-receipt.json") and key.has_sealed(receipt)
    people = [Bundle.read(copied / name, key).people.keys() for name in ("metaunlearn", "one", "two")]
    gone = [key.person(ANN), key.person(BOB)]
    assert people[1] == people[0] - {gone[0]} and people[2] == people[0] - set(gone)
    assert Bundle.read(copied / "two").note["served"] == 2
    (who,) = receipt["people"]
    assert (who["person"], who["known"], who["label_from"], who["numbers_removed"]) == (gone[1], True, PREDICTED, 64)
    assert read_receipt("one-receipt.json")["people"][0]["label_from"] == GIVEN
    assert read_receipt("one-receipt.json")["people"][0]["label"] == "square"
    # nothing of either is left: no hash, no number, no entry; and no name or photo anywhere
    for path in (copied / "two").iterdir():
        data = path.read_bytes()
        for person in gone:
            number = number_of(person)
            assert (
                person.encode() not in data
                and number.to_bytes(8, "little") not in data
                and str(number).encode() not in data
            )
    for path in [*copied.glob("*receipt*"), *(copied / "one").iterdir(), *(copied / "two").iterdir()]:
        assert not [owner for owner in (ANN, BOB) for found in spellings(owner) if found in path.read_bytes()]
    for path in copied.rglob("*"):
        assert path.parent == copied or path.suffix in (".json", ".safetensors")
    for receipt_, before, after in (("one-receipt.json", "metaunlearn", "one"), ("two-receipt.json", "one", "two")):
        assert main(["verify", receipt_, before, after, "--key", "secret.key"]) == DONE
    assert main(["verify", "two-receipt.json", "metaunlearn", "two"]) == NOT_VERIFIED
    assert main(["forget", "two", *asks(ANN), "--out", "three", "--key", "secret.key"]) == REFUSED
    assert "forgotten already" in capsys.readouterr().err
    # the artefact still fits: a second request starts from what the first one left
    assert load_file(old / "model.safetensors").keys() == load_file(copied / "two/model.safetensors").keys()


@pytest.mark.slow
def test_a_receipt_without_its_bundle_does_not_stay(copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A disk that is full when only the page is missing."""

    def full(path: Path, text: str) -> None:
        if path.suffix == ".html":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_text(path, text)

    monkeypatch.setattr(forgetting, "write_text", full)
    assert run(copied, "forget", "jit", *asks(ANN), "--out", "new", "--key", "secret.key", monkeypatch=monkeypatch) == 1
    assert "There is no room left to write" in capsys.readouterr().err
    assert not list(copied.glob("new*")) and not list(copied.glob(".new*"))


OWN = """
import dataclasses, os, shutil
from oneshui.methods.base import Unlearned

@dataclasses.dataclass(frozen=True)
class Own:
    def precompute(self, model, train, val, *, seed):
        return None

    def unlearn(self, model, support, artefact, *, seed):
        {body}
        return Unlearned(model)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("open({key!r}).read()", "the isolated process ended with exit status 1"),
        ('shutil.copy({photo!r}, os.environ["TMPDIR"] + "/bundle/face.png")', "left face.png beside the model"),
    ],
    ids=["opens the key", "keeps the photo"],
)
def test_a_method_of_ones_own_can_neither_open_the_key_nor_keep_the_photo(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, body: str, message: str
) -> None:
    key, photo = copied / "secret.key", copied / "asks_02.png"
    (copied / "code").mkdir()
    (copied / "code/own.py").write_text(OWN.format(body=body.format(key=str(key), photo=str(photo))))
    monkeypatch.syspath_prepend(copied / "code")
    monkeypatch.delitem(sys.modules, "own", raising=False)
    write_objects(copied / "more/photos", "classification")
    model = write_model(copied / "w.safetensors", "test_resnet", "classification")
    spec = {"kind": "own:Own", "needs": "nothing"}
    oneshui.pack_model(copied / "own", images=copied / "more/photos", method=spec, key=key, cpu=True, **model)
    words = ("forget", "own", *asks(ANN), "--out", "new", "--key", "secret.key")
    assert run(copied, *words, monkeypatch=monkeypatch) == REFUSED
    assert message in capsys.readouterr().err
    assert not list(copied.glob("new*")) and not list(copied.glob(".new*"))


@pytest.mark.slow
def test_what_the_receipt_says_where_nothing_was_forgotten(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A step that float32 cannot resolve is served, said, and an exit code of its own."""
    write_objects(copied / "more/photos", "classification")
    model = write_model(copied / "w.safetensors", "test_resnet", "classification")
    oneshui.pack_model(
        copied / "weak", images=copied / "more/photos", method={**method("jit"), "lr": 1e-30},
        key=copied / "secret.key", cpu=True, **model,
    )  # fmt: skip
    words = ("forget", "weak", *asks(ANN), "--out", "new", "--key", "secret.key")
    assert run(copied, *words, monkeypatch=monkeypatch) == NOT_FORGOTTEN
    assert "outcome: saturated. The step was too small to matter: nothing was forgotten." in capsys.readouterr().out
    page = (copied / "new-receipt.html").read_text(encoding="utf-8")
    assert "nothing was forgotten" in page and Key.read(copied / "secret.key").person(ANN) in page and ANN not in page


def test_people_who_are_unknown_are_never_served_by_a_method_that_needs_to_know(copied: Path) -> None:
    """Identity edits and fold models leave a model as it is for somebody whom they do not know."""
    needing = [kind for kind, entry in METHODS.items() if entry.folds]
    assert sorted(needing) == ["fold_model", "identity_edits"]
    note = json.loads((copied / "ssd/bundle.json").read_text(encoding="utf-8"))
    for kind in needing:
        bundle = Bundle(copied / "ssd", {**note, "spec": {"kind": kind}, "method": kind})
        assert bundle.needs_to_know and "--allow-unknown" not in bundle.describe_unknown(["x"])
        assert f"{kind} leaves the model as it is. Correct the name." in bundle.describe_unknown(["x"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ssd", "metaunlearn"])
def test_people_who_are_unknown_are_served_if_that_is_wanted(
    copied: Path, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: Any
) -> None:
    words = [
        "forget",
        kind,
        "--photo",
        f"{OTHERS[0]}=asks_00.png",
        "--allow-unknown",
        "--out",
        "new",
        "--key",
        "secret.key",
    ]
    assert run(copied, *words, monkeypatch=monkeypatch) in (DONE, NOT_FORGOTTEN)
    receipt = read_receipt(copied / "new-receipt.json")
    assert [(p["known"], p["numbers_removed"]) for p in receipt["people"]] == [(False, 0)] and receipt[
        "people_after"
    ] == 6
    assert f"{OTHERS[0]}: NOT KNOWN" in capsys.readouterr().out
    assert main(["verify", "new-receipt.json", kind, "new", "--key", "secret.key"]) == DONE
