"""Receipts: what they say, and that one which lies is found out."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles.conftest import ANN, World

import oneshui
from oneshui.__main__ import DONE, main
from oneshui.bundles.bundle import Key, write_note
from oneshui.bundles.receipt import OUTCOMES, outcome_of, page_of, read_receipt

pytestmark = pytest.mark.slow  # one request for all of them


@pytest.fixture(scope="module")
def receipted(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("receipted")
    shutil.copytree(world.bundle("metaunlearn"), folder / "old")
    oneshui.forget(
        folder / "old", {ANN: world.photos[ANN]}, out=folder / "new", key=world.folder / "secret.key", cpu=True
    )
    shutil.copy(world.folder / "secret.key", folder / "secret.key")
    return folder


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "the outcome": ({"outcome": "forgotten for ever"}, "the receipt is as it was sealed"),
    "who asked": ({"people": []}, "nobody else was taken out than the receipt says"),
    "the numbers": ({"people_after": 4}, "the numbers of people are those of the receipt"),
    "the step": ({"moved": 0.5}, "the weights moved by"),
    "the method": ({"spec": {"kind": "jit"}}, "method and hyper-parameters are the same"),
    "files that it leaves out": ({"old": {}, "new": {}}, "new/model.safetensors is the file of the receipt"),
    "the files": ({"old": {"model.safetensors": "0" * 64}}, "model.safetensors is the file of the receipt"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_receipt_that_was_changed_is_not_verified(receipted: Path, tmp_path: Path, lie: str) -> None:
    entries, check = LIES[lie]
    shutil.copy(receipted / "new-receipt.json", tmp_path / "receipt.json")
    places = (receipted / "old", receipted / "new")
    assert all(c["holds"] for c in oneshui.verify(tmp_path / "receipt.json", *places, key=receipted / "secret.key"))
    said = json.loads((tmp_path / "receipt.json").read_text(encoding="utf-8"))
    (tmp_path / "receipt.json").write_text(json.dumps({**said, **entries}), encoding="utf-8")
    with_key, without = (
        [c["check"] for c in oneshui.verify(tmp_path / "receipt.json", *places, key=key) if not c["holds"]]
        for key in (receipted / "secret.key", None)
    )
    assert any(check in text for text in with_key) and "the receipt is as it was sealed" in with_key
    assert lie == "the outcome" or any(check in text for text in without)


def test_a_receipt_whose_seal_nobody_could_look_at_is_said_to_be_one(
    receipted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(receipted)
    words = ["verify", "new-receipt.json", "old", "new"]
    assert main(words) == DONE and "Seals were not looked at, for the key is not here" in capsys.readouterr().out
    assert main([*words, "--key", "secret.key"]) == DONE and "not looked at" not in capsys.readouterr().out
    for more, seals in (([], False), (["--key", "secret.key"], True)):
        assert main([*words, "--json", *more]) == DONE
        assert json.loads(capsys.readouterr().out)["seals"] is seals


def test_a_bundle_that_still_knows_them_is_not_verified(receipted: Path, tmp_path: Path) -> None:
    """Whoever puts the old artefact back, with hashes that fit, is found out."""

    shutil.copytree(receipted / "new", tmp_path / "new")
    shutil.copy(receipted / "old/artefact.safetensors", tmp_path / "new/artefact.safetensors")
    note = json.loads((tmp_path / "new/bundle.json").read_text(encoding="utf-8"))
    write_note(tmp_path / "new", note, Key.read(receipted / "secret.key"))
    failed = [c["check"] for c in oneshui.verify(receipted / "new-receipt.json", receipted / "old", tmp_path / "new")
              if not c["holds"]]  # fmt: skip
    assert "what the method keeps is of the people of the new bundle only" in failed


class _Page(HTMLParser):
    """Collects the text of a page, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.loads = "", []  # type: tuple[str, list[str]]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_says_what_the_receipt_says_and_loads_nothing(receipted: Path) -> None:
    receipt = read_receipt(receipted / "new-receipt.json")
    page = _Page()
    page.feed((receipted / "new-receipt.html").read_text(encoding="utf-8"))
    assert page.loads == [] and page_of(receipt) == (receipted / "new-receipt.html").read_text(encoding="utf-8")
    (who,) = receipt["people"]
    wanted = [receipt["at"], receipt["method"], receipt["stays"], who["person"], OUTCOMES[receipt["outcome"]]]
    wanted += [*receipt["old"].values(), *receipt["new"].values(), f"{100 * who['after']['sure_of_label']:.1f} %"]
    assert all(text in page.text for text in wanted) and ANN not in page.text


def test_what_stands_in_a_receipt_is_text_in_its_page(receipted: Path) -> None:
    """Class names of somebody else's bundle must not become a part of the page."""
    receipt = read_receipt(receipted / "new-receipt.json")
    (who,) = receipt["people"]
    page = page_of({**receipt, "people": [{**who, "label": "<script>alert(1)</script>"}]})
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("diagnostics", "outcome"),
    [
        ({}, "served"),
        ({"forgotten_share": 1.0, "saturated": False, "blown_up": False}, "served"),
        ({"forgotten_share": 0.5}, "partly served"),
        ({"forgotten_share": 0.5, "blown_up": True}, "diverged"),
        ({"saturated": True}, "saturated"),
    ],
)
def test_the_outcome_follows_from_what_the_method_says(diagnostics: dict[str, float], outcome: str) -> None:
    assert outcome_of(diagnostics) == outcome and OUTCOMES[outcome]
