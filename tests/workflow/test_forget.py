"""Bundles of a run of the workflow: packed while the data is there, served after it is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from tests.workflow.conftest import SUPPORT_ONLY, run_workflow, tensor_hashes, toy_config, write_config

import oneshui
from oneshui.bundles.bundle import Bundle, Key, number_of
from oneshui.data.index import natural_order
from oneshui.errors import ArtefactError, BundleError, CheckpointError
from oneshui.files import read_header
from oneshui.schemas import INDEX, REQUEST, SPLITS, read_table, write_table
from oneshui.tensors import load_tensors

pytestmark = pytest.mark.slow
UNLEARNED = "results/unlearned/toy/n3/seed0/pretrain"
CPU = torch.device("cpu")
METHODS = [*SUPPORT_ONLY, "identity_edits", "fold_model"]


class Served:
    """A folder with a bundle of each method and the photos of a request; the data and all results are beside it.

    Attributes:
        folder: with bundles, key and photos.
        results: where the workflow ran.
        names: of the people who ask, in the order of the workflow's request.
        labels: of their photos.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder, results
        request, meta = read_table(results / "results/requests/toy/n3/seed0.parquet", REQUEST)
        index, _ = read_table(results / "results/data/toy/index.parquet", INDEX)
        name_of = dict(zip(index["identity"], index["identity_name"], strict=True))
        self.names = [str(name_of[identity]) for identity in request["identity"]]
        self.labels = {
            name: str(meta["classes"][label]) for name, label in zip(self.names, request["label"], strict=True)
        }
        self.photos = {name: folder / f"{name}.png" for name in self.names}
        for name, data in zip(self.names, request["image"], strict=True):
            self.photos[name].write_bytes(data)

    def words(self, bundle: str, out: str, *names: str) -> list[str]:
        """The command that forgets these people."""
        asked = [word for name in names for word in ("--photo", f"{name}={name}.png", "--label", self._labelled(name))]
        return [sys.executable, "-m", "oneshui", "forget", bundle, *asked, "--out", out, "--key", "secret.key"]

    def _labelled(self, name: str) -> str:
        return f"{name}={self.labels[name]}"


@pytest.fixture(scope="module")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Bundles of all methods that can serve a request, of a run whose data is then moved away."""
    folder = tmp_path_factory.mktemp("served")
    results = folder / "run"
    subprocess.run(["cp", "-a", str(finished), str(results)], check=True)
    config = write_config(results, toy_config())
    targets = [f"{UNLEARNED}/{method}.safetensors" for method in METHODS]
    run_workflow(results, "--configfile", str(config), "--", *targets)
    found = Served(folder, results)
    for method in METHODS:
        oneshui.pack(
            folder / method, configfile=config, dataset="toy", method=method, folder=results, key=folder / "secret.key"
        )
    for gone in ("raw", "data", "splits", "models", "artefacts", "requests"):
        (results / "results" / gone).rename(results / f"away_{gone}")
    return found


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_are_bit_for_bit_those_of_the_workflow(served: Served, tmp_path: Path, method: str) -> None:
    receipt = oneshui.forget(
        served.folder / method, served.photos, labels=served.labels, out=tmp_path / "new",
        key=served.folder / "secret.key", cpu=True,
    )  # fmt: skip
    wanted = served.results / f"{UNLEARNED}/{method}.safetensors"
    assert tensor_hashes(tmp_path / "new/model.safetensors") == tensor_hashes(wanted)
    health = read_header(wanted)["health"]
    assert receipt["diagnostics"] == health and receipt["isolation"] in ("landlock", "audit hook")
    checks = oneshui.verify(
        tmp_path / "new-receipt.json", served.folder / method, tmp_path / "new", key=served.folder / "secret.key"
    )
    assert all(each["holds"] for each in checks), checks
    assert len([each for each in checks if "sealed" in each["check"]]) == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_knows_whom_the_model_was_trained_on_and_keeps_what_the_artefact_held_of_each(
    served: Served, method: str
) -> None:
    index, _ = read_table(served.results / "away_data/toy/index.parquet", INDEX)
    splits, _ = read_table(served.results / "away_splits/toy/seed0.parquet", SPLITS)
    train = index["identity_name"][splits.loc[splits["role"] == "train", "image_id"]].unique()
    key = Key.read(served.folder / "secret.key")
    bundle = Bundle.read(served.folder / method, key)
    assert bundle.people.keys() == {key.person(name) for name in train}
    keeps = {"metaunlearn": 64, "fold_model": 1}
    if method in keeps:
        assert set(bundle.people.values()) == {keeps[method]}
    elif method == "identity_edits":
        assert min(bundle.people.values()) > 100
        assert bundle.artefact is not None
        tensors, _ = load_tensors(bundle.artefact, CPU)
        people = sum(t.numel() for name, t in tensors.items() if name.endswith(("/keys", "/changes")))
        assert sum(bundle.people.values()) == people
    else:
        assert set(bundle.people.values()) == {0}


def test_people_of_a_fold_model_who_can_no_longer_be_served_are_said(served: Served, tmp_path: Path) -> None:
    receipt = oneshui.forget(
        served.folder / "fold_model", {served.names[0]: served.photos[served.names[0]]}, out=tmp_path / "new",
        key=served.folder / "secret.key", cpu=True,
    )  # fmt: skip
    new = Bundle.read(tmp_path / "new")
    assert receipt["no_longer_served"] > 0
    assert receipt["people_after"] == receipt["people_before"] - 1 - receipt["no_longer_served"] == len(new.people)
    assert new.artefact is not None
    tensors, _ = load_tensors(new.artefact, CPU)
    assert len({name.partition("/")[0] for name in tensors if "/" in name}) == 1
    assert all(
        each["holds"]
        for each in oneshui.verify(tmp_path / "new-receipt.json", served.folder / "fold_model", tmp_path / "new")
    )


def test_identity_edits_one_after_the_other_are_those_of_one_request(served: Served, tmp_path: Path) -> None:
    """A second request starts from what the first one left, model and artefact."""
    bundle = served.folder / "identity_edits"
    for number, name in enumerate(served.names):
        oneshui.forget(
            bundle, {name: served.photos[name]}, labels={name: served.labels[name]}, out=tmp_path / str(number),
            key=served.folder / "secret.key", cpu=True,
        )  # fmt: skip
        bundle = tmp_path / str(number)
    wanted, _ = load_tensors(served.results / f"{UNLEARNED}/identity_edits.safetensors", CPU)
    folders = [served.folder / "identity_edits", *(tmp_path / str(number) for number in range(len(served.names)))]
    steps = [load_tensors(folder / "model.safetensors", CPU)[0] for folder in folders]
    moved = 0
    for name, value in wanted.items():
        # each step rounds the change and the sum to float32, at the size that the weight has then
        rounding = 2.0**-22 * torch.stack([step[name].double().abs() for step in steps]).sum(0)
        assert ((steps[-1][name].double() - value.double()).abs() <= rounding).all(), name
        moved += int((steps[-1][name].double() - steps[0][name].double()).abs().gt(10 * rounding).sum())
    assert moved > 100
    key = Key.read(served.folder / "secret.key")
    gone = {number_of(key.person(name)) for name in served.names}
    left, _ = load_tensors(bundle / "artefact.safetensors", CPU)
    assert not gone & set(left["identities"].tolist())
    with pytest.raises(BundleError, match="identity_edits leaves the model as it is"):
        oneshui.forget(bundle, served.photos, out=tmp_path / "x", key=served.folder / "secret.key", allow_unknown=True)


def test_names_sort_as_in_the_index(served: Served) -> None:
    """Else sums over people would differ from the workflow's in their last bit."""
    index, _ = read_table(served.results / "away_data/toy/index.parquet", INDEX)
    people = index[["identity", "identity_name"]].drop_duplicates().sort_values("identity")
    assert people["identity_name"].tolist() == natural_order(people["identity_name"])


# ---- what does not belong together


def test_a_model_of_another_split_or_an_artefact_of_another_model_is_not_packed(copied: Path, tmp_path: Path) -> None:
    config = write_config(copied, toy_config())

    def pack() -> None:
        oneshui.pack(tmp_path / "b", configfile=config, dataset="toy", method="ssd", folder=copied)

    artefact = copied / "results/artefacts/toy/n3/seed0/pretrain/ssd.safetensors"
    model = copied / "results/models/toy/seed0/pretrain.safetensors"
    old = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes((copied / "results/models/toy/n3/seed0/retrain.safetensors").read_bytes())
    with pytest.raises(ArtefactError, match=r"ssd\.safetensors was made for another model"):
        pack()
    model.write_bytes(old)
    splits = copied / "results/splits/toy/seed0.parquet"
    frame, meta = read_table(splits, SPLITS)
    write_table(splits, frame, SPLITS, {**meta, "content": "0" * 16})
    with pytest.raises(CheckpointError, match="was trained on another split than"):
        pack()
    artefact.unlink()
    with pytest.raises(BundleError, match=r"the artefact of the run, .*ssd\.safetensors, is not there. Make it while"):
        pack()
    assert not list(tmp_path.glob("*.key")) and not (tmp_path / "b").exists()


# ---- requests at once, and killed ones


@pytest.fixture
def alone(served: Served, tmp_path: Path) -> Path:
    """A folder with one bundle, its key and the photos."""
    subprocess.run(
        ["cp", "-a", str(served.folder / "jit"), str(served.folder / "secret.key"), str(tmp_path)], check=True
    )
    for photo in served.photos.values():
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    return tmp_path


def test_requests_at_once_do_not_meet(served: Served, alone: Path) -> None:
    """Two people, two outputs of one name: whoever is told of success got their own model, and their own receipt."""
    hashes = []
    for number, name in enumerate(served.names[:2]):
        subprocess.run(
            served.words("jit", f"alone{number}", name), cwd=alone, check=True, capture_output=True, timeout=120
        )
        hashes.append(tensor_hashes(alone / f"alone{number}/model.safetensors"))
    both = [
        subprocess.Popen(served.words("jit", "same", name), cwd=alone, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in served.names[:2]
    ]
    told = [process.communicate(timeout=120)[1].decode() for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], told
    winner, key = codes.index(0), Key.read(alone / "secret.key")
    assert "same is there, and nothing is replaced" in told[1 - winner] or "receipt" in told[1 - winner]
    assert tensor_hashes(alone / "same/model.safetensors") == hashes[winner]
    receipt = json.loads((alone / "same-receipt.json").read_text())
    assert [each["person"] for each in receipt["people"]] == [key.person(served.names[winner])]
    assert not list(alone.glob(".*"))


def start(served: Served, folder: Path, out: str, lives: Callable[[Path], object]) -> "subprocess.Popen[bytes]":
    """Start a request and stop it once ``lives`` finds something in the folder."""
    process = subprocess.Popen(
        served.words("jit", out, served.names[0]), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not lives(folder):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    return process


def hidden(folder: Path) -> list[str]:
    return sorted(path.name.rsplit(".", 2)[0] for path in folder.glob(".*.tmp"))


#: before the process that unlearns writes anything; while it writes the model
MOMENTS: list[Callable[[Path], object]] = [
    lambda folder: list(folder.glob(".one.*.tmp")),
    lambda folder: list(folder.glob(".one.*.tmp/.bundle.*.tmp/bundle")),
]


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
def test_what_a_killed_request_left_goes_with_the_next_and_what_a_living_one_uses_stays(
    served: Served, alone: Path, moment: int
) -> None:
    killed = start(served, alone, "one", MOMENTS[moment])
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate()
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert hidden(alone) == [".one"] and not (alone / "one").exists() and not list(alone.glob("one-receipt*"))
    photo = (alone / f"{served.names[0]}.png").read_bytes()
    assert not [path for path in alone.glob(".*/**/*") if path.is_file() and photo[64:128] in path.read_bytes()]

    living = start(served, alone, "two", lambda folder: list(folder.glob(".two.*.tmp/oneshui.lock")))
    try:
        assert hidden(alone) == [".two"]  # the killed one's is gone
        done = subprocess.run(
            served.words("jit", "three", served.names[0]), cwd=alone, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0 and hidden(alone) == [".two"]
        living.send_signal(signal.SIGCONT)
        _, said = living.communicate(timeout=120)
        assert living.returncode == 0, said.decode()
    finally:
        living.kill()
        living.communicate()
    assert hidden(alone) == []
    assert tensor_hashes(alone / "two/model.safetensors") == tensor_hashes(alone / "three/model.safetensors")
