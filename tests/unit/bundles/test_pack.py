"""What a bundle holds, what it does not, and that it is what was packed."""

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.unit.bundles.conftest import World
from tests.unit.bundles.objects import OWNERS, method, write_model, write_objects

import oneshui
from oneshui.bundles.bundle import Bundle, Key, number_of
from oneshui.data.pack import decode
from oneshui.errors import ArtefactError, BundleError, ConfigError, DataError
from oneshui.files import read_header
from oneshui.methods.base import Artefact
from oneshui.models import load_model
from oneshui.stages.images import input_of

CPU = torch.device("cpu")
CLASSES = ["circle", "square", "triangle"]


def spellings(name: str) -> list[bytes]:
    """How a name could stand in a file: as it is, in other codes, or as a hash that anybody could compute."""
    raw = [name, name.lower(), name.split()[0], name.split()[-1]]
    codes = [text.encode(code) for text in raw if len(text) > 2 for code in ("utf-8", "utf-16-le", "utf-32-le")]
    hashes = [hashlib.new(kind, name.encode()) for kind in ("md5", "sha1", "sha256", "sha512")]
    escaped = [json.dumps(name)[1:-1].encode()]
    return [*codes, *escaped, *(h.digest() for h in hashes), *(h.hexdigest()[:16].encode() for h in hashes)]


@pytest.mark.parametrize("kind", ["ssd", "jit", pytest.param("pgu", marks=pytest.mark.slow), "metaunlearn"])
def test_no_byte_of_a_bundle_tells_a_name_or_shows_a_picture(world: World, kind: str) -> None:
    files = [path for path in world.bundle(kind).rglob("*") if path.is_file()]
    assert {"model.safetensors", "bundle.json"} <= {path.name for path in files}
    pictures = sorted((world.folder / "photos").glob("*.png"))
    for path in files:
        data = path.read_bytes()
        for name in OWNERS:
            assert not [found for found in spellings(name) if found in data], (path.name, name)
        for picture in pictures:
            with Image.open(picture) as image:
                pixels = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
            rows = [pixels[row].tobytes() for row in range(0, 32, 4)]
            rows += [pixels[row].transpose(1, 0).tobytes() for row in range(0, 32, 4)]
            rows += [(pixels[row, :8].astype("float32") / 255).tobytes() for row in range(0, 32, 4)]
            assert not any(row in data for row in rows) and picture.name.encode() not in data
        assert b"PNG\r\n" not in data and b"JFIF" not in data and str(world.folder).encode() not in data


def test_people_are_hashes_of_the_key_and_stand_in_their_order(world: World) -> None:
    key = Key.read(world.folder / "secret.key")
    bundle = Bundle.read(world.bundle("metaunlearn"), key)
    wanted = {key.person(name) for name in OWNERS}
    assert bundle.people == dict.fromkeys(sorted(wanted), 64) and list(bundle.people) == sorted(wanted)
    assert bundle.artefact is not None
    numbers = load_file(bundle.artefact)["identities"].tolist()
    assert numbers == sorted(map(number_of, wanted)) and max(numbers) < 2**63
    assert Key.new().person(OWNERS[0]) not in wanted
    assert key.person("  Zuleika\u00a0Oxenford ") == key.person("Zuleika Oxenford") != key.person("zuleika oxenford")


def test_each_entry_is_still_that_of_its_person(world: World, tmp_path: Path) -> None:
    """Entries are packed in another order than they were computed in: none may change hands."""
    key = Key.read(world.folder / "secret.key")
    artefacts = []
    for number, secret in enumerate((world.folder / "secret.key", tmp_path / "other.key")):
        model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
        made = oneshui.pack_model(
            tmp_path / str(number), images=world.folder / "photos", method=method("metaunlearn"), key=secret, cpu=True,
            validation=world.folder / "others/photos", **model,
        )  # fmt: skip
        assert made.artefact is not None
        artefacts.append(load_file(made.artefact))
    tables = []
    for found, each in zip(artefacts, (key, Key.read(tmp_path / "other.key")), strict=True):
        rows = [found["identities"].tolist().index(number_of(each.person(name))) for name in OWNERS]
        tables.append(found["phi.embed.weight"][rows])
    assert torch.equal(*tables) and not torch.equal(tables[0][0], tables[0][1])
    assert artefacts[0]["identities"].tolist() != artefacts[1]["identities"].tolist()


def test_the_key_is_its_owners_and_lies_outside(world: World, tmp_path: Path) -> None:
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
    made = oneshui.pack_model(tmp_path / "b", images=world.folder / "photos", method=method("jit"), cpu=True, **model)
    (path,) = tmp_path.glob("*.key")
    assert path.name == f"oneshui-{made.note['key']}.key" and stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = Key.read(path).secret
    for file in made.folder.iterdir():
        assert secret not in file.read_bytes() and secret.hex().encode() not in file.read_bytes()
    with pytest.raises(BundleError, match="would lie in the bundle"):
        oneshui.pack_model(
            tmp_path / "c", images=world.folder / "photos", method=method("jit"), key=tmp_path / "c/k.key", **model
        )
    assert not (tmp_path / "c").exists()


def test_a_key_that_came_meanwhile_is_another_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two packs with one new key: the second would leave a bundle whose key nobody has."""
    path = tmp_path / "new.key"
    (tmp_path / "meanwhile.py").write_text(f"""
import dataclasses, pathlib
from oneshui.bundles.bundle import Key

@dataclasses.dataclass(frozen=True)
class Meanwhile:
    def precompute(self, model, train, val, *, seed):
        Key.new().save(pathlib.Path({str(path)!r}))

    def unlearn(self, model, support, artefact, *, seed):
        raise NotImplementedError
""")
    monkeypatch.syspath_prepend(tmp_path)
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
    spec = {"kind": "meanwhile:Meanwhile", "needs": "artefact"}
    with pytest.raises(BundleError, match=r"the key .*new\.key cannot be written \(File exists\)"):
        oneshui.pack_model(tmp_path / "b", images=world.folder / "photos", method=spec, key=path, cpu=True, **model)
    assert Key.read(path) and not (tmp_path / "b").exists() and not list(tmp_path.glob(".b*"))


def test_classes_that_are_people_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_objects(tmp_path / "photos", "classification", ("circle", OWNERS[0]))
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
    oneshui.pack_model(tmp_path / "b", images=tmp_path / "photos", method=method("jit"), cpu=True, **model)
    assert "classes with the name of somebody who may ask: 1. Names of classes can be read" in caplog.text


def test_the_weights_are_those_that_were_handed_in_and_nothing_else_is_said_of_them(world: World) -> None:
    before, after = (
        load_file(path) for path in (world.folder / "weights.safetensors", world.bundle("ssd") / "model.safetensors")
    )
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert read_header(world.bundle("ssd") / "model.safetensors").keys() == {"model_spec", "stored_px"}
    artefact, header = Artefact.load(world.bundle("metaunlearn") / "artefact.safetensors", CPU)
    assert header.keys() == {"model", "spec"} and artefact.metadata.keys() == {"n_outputs", "n_features", "health"}


def test_what_is_shown(world: World) -> None:
    found = oneshui.show(world.bundle("metaunlearn"))
    assert (found["known"], found["kept"], found["served"], found["sealed"]) == (6, [64, 64], 0, None)
    assert found["model"]["task"] == {"kind": "classification", "classes": CLASSES} and found["stored_px"] == [32, 32]
    assert "people" not in found and "meta-loss" in found["stays"] and found["needs_to_know"] is False
    found = oneshui.show(world.bundle("ssd"), person="Xochitl Yáñez", key=world.folder / "secret.key")
    assert found["sealed"] is True and (found["person"]["known"], found["person"]["numbers"]) == (True, 0)
    assert (
        oneshui.show(world.bundle("ssd"), person="Val Or", key=world.folder / "secret.key")["person"]["known"] is False
    )


def test_a_method_of_ones_own_that_keeps_people_must_be_able_to_take_them_out(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keeping.py").write_text("""
import dataclasses, torch
from oneshui.methods.base import Artefact, Unlearned

@dataclasses.dataclass(frozen=True)
class Keeping:
    def precompute(self, model, train, val, *, seed):
        return Artefact({"identities": train.identities.unique()})

    def unlearn(self, model, support, artefact, *, seed):
        return Unlearned(model)

@dataclasses.dataclass(frozen=True)
class Able(Keeping):
    def of_people(self, artefact, rows):
        return Artefact({"identities": artefact.need("identities")[rows]})

    def numbers_of_people(self, artefact):
        return torch.ones(len(artefact.need("identities")), dtype=torch.int64)
""")
    monkeypatch.syspath_prepend(tmp_path)
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")

    def packed(name: str) -> Bundle:
        spec = {"kind": f"keeping:{name}", "needs": "artefact"}
        return oneshui.pack_model(tmp_path / name, images=world.folder / "photos", method=spec, cpu=True, **model)

    with pytest.raises(ArtefactError, match="cannot take a person out: give it of_people"):
        packed("Keeping")
    assert set(packed("Able").people.values()) == {1}


def refused(world: World, tmp_path: Path, change: dict[str, Any], kind: str = "ssd") -> Exception:
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
    with pytest.raises((BundleError, ConfigError, DataError)) as told:
        oneshui.pack_model(
            tmp_path / "b",
            **{**model, "images": world.folder / "photos", "method": method(kind), "cpu": True, **change},
        )
    assert not (tmp_path / "b").exists() and not list(tmp_path.glob("*.key")) and not list(tmp_path.glob(".*"))
    return told.value


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({}, "identity_edits", "identity_edits needs fold models, .* Only the workflow trains them"),
        ({}, "fold_model", "Only the workflow trains them"),
        ({}, "scrub", "scrub needs the training data to unlearn"),
        ({}, "metaunlearn", "validation set is empty.*--validation FOLDER"),
        ({"method": {"kind": "sdd"}}, "", "method kind 'sdd' is unknown, allowed: "),
        ({"method": {**method("ssd"), "selection": 0.0}}, "", "ssd: selection = 0.0, allowed: a number > 0"),
        ({"model": "resnet999"}, "ssd", "timm cannot build model 'resnet999'|timm does not say"),
        ({"model": "test_vit"}, "ssd", "does not fit test_vit with 3 classes"),
        ({"weights": "w.pth"}, "ssd", "are pickles, which can run any program"),
        ({"images": "nowhere"}, "ssd", "the raw folder nowhere does not exist"),
        ({"options": {"label_column": "species"}}, "ssd", "manifest.csv.*species"),
        ({"options": {"classes": ["circle", "square"]}}, "ssd", "label .* is 'triangle', allowed: circle, square"),
        ({"options": {"classes": [*CLASSES, "star"]}}, "ssd", "does not fit test_resnet with 4 classes"),
        ({"std": 0.0}, "ssd", r"std = \[0.0, 0.0, 0.0\], allowed: finite numbers > 0"),
        ({"std": float("inf")}, "ssd", r"std = \[inf, inf, inf\], allowed: finite numbers > 0"),
        ({"mean": float("nan")}, "ssd", r"mean = \[nan, nan, nan\], allowed: finite numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_packed(world: World, tmp_path: Path, change: dict[str, Any], kind: str, message: str) -> None:
    if str(change.get("weights", "")).endswith(".pth"):
        change = {"weights": tmp_path / "w.pth"}
        torch.save({}, tmp_path / "w.pth")
    told = refused(world, tmp_path, change, kind or "ssd")
    assert re.search(message, str(told)), told


def test_weights_that_are_not_finite_are_refused(world: World, tmp_path: Path) -> None:
    model = write_model(tmp_path / "good.safetensors", "test_resnet", "classification")
    tensors = load_file(model["weights"])
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).fill_(float("nan"))
    save_file(tensors, tmp_path / "bad.safetensors")
    assert "not finite" in str(refused(world, tmp_path, {"weights": tmp_path / "bad.safetensors"}))


def test_a_wrong_order_of_classes_shows(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that knows its images answers few of them where the classes are in another order."""
    caplog.set_level("INFO", "oneshui")
    write_objects(tmp_path / "photos", "classification")
    answers = _answers(world, tmp_path)
    lines = (tmp_path / "photos/manifest.csv").read_text(encoding="utf-8").splitlines()
    rows = [f"{line.rpartition(',')[0]},{CLASSES[answers[i]]}" for i, line in enumerate(lines[1:])]
    (tmp_path / "photos/manifest.csv").write_text("\n".join([lines[0], *rows]), encoding="utf-8")
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
    arguments = {**model, "images": tmp_path / "photos", "method": method("jit"), "cpu": True}
    oneshui.pack_model(tmp_path / "right", **arguments, options={"classes": CLASSES})
    assert "answers 100 % of the training images' labels" in caplog.text and "that is little" not in caplog.text
    turned = [CLASSES[1], CLASSES[2], CLASSES[0]]
    oneshui.pack_model(tmp_path / "wrong", **arguments, options={"classes": turned})
    assert "answers 0 % of the training images' labels" in caplog.text and "that is little" in caplog.text


def _answers(world: World, tmp_path: Path) -> list[int]:
    checkpoint = load_model(world.bundle("jit") / "model.safetensors", CPU)
    pixels = np.stack([decode(path, 32, 32) for path in sorted((tmp_path / "photos").glob("*.png"))])
    with torch.no_grad():
        return checkpoint.model(input_of(checkpoint.spec).prepare(torch.from_numpy(pixels))).argmax(1).tolist()


def test_nothing_is_packed_over_what_is_there(world: World, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    model = write_model(tmp_path / "weights.safetensors", "test_resnet", "classification")
    with pytest.raises(BundleError, match="b is there, and nothing is replaced"):
        oneshui.pack_model(tmp_path / "b", images=world.folder / "photos", method=method("jit"), **model)
    assert not list((tmp_path / "b").iterdir())
