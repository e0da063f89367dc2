"""One packed bundle of drawn objects, for all tests of this folder."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from tests.unit.bundles.objects import OTHERS, OWNERS, method, write_model, write_objects

import oneshui

ANN, BOB = OWNERS[2], OWNERS[4]


class World(NamedTuple):
    """Where the objects, the model and its bundles lie; nobody writes there."""

    folder: Path

    @property
    def photos(self) -> dict[str, Path]:
        """One photo of each owner."""
        return {owner: self.folder / f"asks_{number:02}.png" for number, owner in enumerate(OWNERS)}

    def bundle(self, kind: str) -> Path:
        """The bundle of a kind of method."""
        return self.folder / kind


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "bundles"
    with FileLock(base / "bundles.lock"):
        if not (folder / "done").exists():
            folder.mkdir()
            write_objects(folder / "photos", "classification")
            write_objects(folder / "others/photos", "classification", OTHERS)
            model = write_model(folder / "weights.safetensors", "test_resnet", "classification")
            for kind in ("ssd", "jit", "pgu", "metaunlearn"):
                oneshui.pack_model(
                    folder / kind, images=folder / "photos", method=method(kind),
                    validation=folder / "others/photos", key=folder / "secret.key", cpu=True, **model,
                )  # fmt: skip
            (folder / "done").touch()
    return World(folder)


@pytest.fixture
def copied(world: World, tmp_path: Path) -> Path:
    """A folder with the bundles, their key and the photos, and no training image."""
    shutil.copytree(world.folder, tmp_path / "w", ignore=shutil.ignore_patterns("photos", "others", "pgu", "done"))
    return tmp_path / "w"


def asks(*owners: str) -> list[str]:
    """The words of a command that say who asks, in that folder."""
    return [word for owner in owners for word in ("--photo", f"{owner}=asks_{OWNERS.index(owner):02}.png")]
