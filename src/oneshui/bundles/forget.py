"""A request: photos of people come in, a bundle without them goes out, and a receipt."""

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oneshui.bundles.bundle import (
    ANSWERS,
    ARTEFACT,
    MODEL,
    NOTE,
    Bundle,
    Key,
    check_name,
    check_new,
    new_bundle,
    number_of,
    write_note,
)
from oneshui.bundles.receipt import OUTCOMES, outcome_of, page_of
from oneshui.data.index import natural_order
from oneshui.data.names import normal_name
from oneshui.errors import BundleError, DataError
from oneshui.files import parse_json, require_regular, sha256_file, write_text
from oneshui.folders import own_folder
from oneshui.isolation import run_isolated
from oneshui.leases import lease_gpu
from oneshui.log import logger
from oneshui.methods import METHODS

#: who said what a photo shows
GIVEN, PREDICTED = "given", "the model's own answer"


def forget(
    bundle: str | Path, photos: Mapping[str, str | Path] | Iterable[tuple[str, str | Path]], *,
    out: str | Path | None = None, labels: Mapping[str, str] | None = None, key: str | Path | None = None,
    receipt: str | Path | None = None, allow_unknown: bool = False, dry_run: bool = False, cpu: bool = False,
    threads: int = 1,
) -> dict[str, Any]:  # fmt: skip
    """Forget people, and write a new bundle without what the old one keeps of them.

    Args:
        bundle: folder of the bundle. It stays as it is.
        photos: name of each person, as in the training data -> one photo: upright, cropped and aligned like the
            training images. They are neither copied nor kept.
        out: folder of the new bundle, which must not be there; may be left out with ``dry_run``.
        labels: name -> a class, or attributes separated by commas; of whoever is left out the model's answer counts.
        key: file of the bundle's key; None: beside the bundle.
        receipt: file of the receipt, ``.json``; its page goes beside it. None: beside the new bundle.
        allow_unknown: serve people whom the bundle does not know, too, if its method can.
        dry_run: look at everything, write nothing.
        cpu: leave a GPU alone.
        threads: of the CPU.

    Returns:
        The receipt; with ``dry_run`` what there is of it before.

    Raises:
        BundleError: the bundle, its key or a name is wrong, somebody is unknown, or something is at ``out``.
        DataError: a photo or a label is unusable.
        OneShuiError: the method cannot unlearn from this model and artefact.
    """
    began = time.perf_counter()
    found, secret = Bundle.unlocked(bundle, key)
    people = _people(photos, labels or {}, found, secret)
    unknown = [each["name"] for each in people if each["person"] not in found.people]
    if unknown and (not allow_unknown or found.needs_to_know):
        raise BundleError(found.describe_unknown(unknown))
    if unknown:
        logger.warning("unknown: %s. For them %s %s", ", ".join(unknown), found.note["method"], found.for_unknown)
    if out is None and not dry_run:
        raise BundleError("there is no place for the new bundle. Name it: --out NEW.")
    target = Path(out if out is not None else f"{found.folder}-new")
    told = Path(receipt) if receipt is not None else target.with_name(f"{target.name}-receipt.json")
    if told.suffix != ".json":
        raise BundleError(f"the receipt {told} must end in .json; its page, .html, goes beside it.")
    if not dry_run:
        for path, option in (
            (target, "--out NEW"),
            (told, "--receipt FILE"),
            (told.with_suffix(".html"), "--receipt FILE"),
        ):
            check_new(path, option)
        _check_outside(target, [found.folder], "--out NEW")
        _check_outside(told, [found.folder, target], "--receipt FILE")
    note: dict[str, Any] = {
        "format": found.note["format"], "method": found.note["method"], "spec": found.note["spec"],
        "old": _hashes(found.folder, found.note),
    }  # fmt: skip
    if dry_run:
        with own_folder(Path(tempfile.gettempdir()), "oneshui-request") as stage:
            said = _serve(found, people, stage / "bundle", secret_file=key, dry_run=True, cpu=cpu, threads=threads)
        return {**note, "outcome": "dry run", "people": _told(people, said, found), "isolation": said["isolation"]}
    with new_bundle(target) as made:
        said = _serve(found, people, made.folder, secret_file=key, dry_run=False, cpu=cpu, threads=threads)
        left = _left(found, people, said)
        new = write_note(made.folder, {**found.note, "people": left, "served": found.note["served"] + 1}, secret)
        seconds = round(time.perf_counter() - began, 3)
        whole = secret.sealed(note | _receipt(found, people, said, left, _hashes(made.folder, new), seconds))

        written: list[Path] = []

        def write_receipt() -> None:
            for path, text in (
                (told, json.dumps(whole, indent=1) + "\n"), (told.with_suffix(".html"), page_of(whole))
            ):  # fmt: skip
                check_new(path, "--receipt FILE")
                written.append(path)
                write_text(path, text)

        try:
            made.publish(write_receipt)
        except BaseException:  # a receipt without its bundle would say what is not so
            for path in written:
                path.unlink(missing_ok=True)
            raise
    return whole


def _check_outside(path: Path, bundles: Iterable[Path], option: str) -> None:
    """Refuse a place in a bundle: it would go when the bundle is deleted."""
    for bundle in bundles:
        if path.resolve().is_relative_to(bundle.resolve()):
            raise BundleError(f"{path} would lie in the bundle {bundle}. Name a place outside: {option}.")


def _people(
    photos: Mapping[str, str | Path] | Iterable[tuple[str, str | Path]], labels: Mapping[str, str], bundle: Bundle,
    key: Key,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return ``name``, ``person`` (hash), ``path`` and ``label`` (as a number, or None) of each who asks."""
    if isinstance(photos, str | Path):
        raise BundleError(f"nobody can tell whose photo {photos} is. Hand in photos by name: {{NAME: FILE}}.")
    wanted: dict[str, str] = {}
    for name, given in labels.items():
        first = wanted.setdefault(check_name(name), given)
        if first != given:
            raise BundleError(f"{check_name(name)!r} has two labels, {first!r} and {given!r}. Give one.")
    people: list[dict[str, Any]] = []
    for name, path in photos.items() if isinstance(photos, Mapping) else photos:
        normal, photo = check_name(name), Path(path)
        for other in people:
            if other["name"] == normal:
                raise BundleError(
                    f"{normal!r} has two photos, {other['path']} and {photo}. Hand in one for each person."
                )
            if other["path"].resolve() == photo.resolve():
                raise BundleError(
                    f"{photo} is the photo of both {other['name']!r} and {normal!r}. Correct one of them."
                )
        _check_photo(photo)
        label = label_of(wanted.pop(normal), bundle.task) if normal in wanted else None
        people.append({"name": normal, "person": key.person(normal), "path": photo, "label": label})
    if not people:
        raise BundleError("nobody asks to be forgotten. Hand in at least one photo: --photo NAME=FILE.")
    if wanted:
        raise BundleError(
            f"there is a label of {', '.join(map(repr, wanted))}, but no photo. Hand it in, or correct it."
        )
    return people


def _check_photo(path: Path) -> None:
    try:
        require_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}). Hand in another photo.") from error


def label_of(label: str, task: Mapping[str, Any]) -> int | list[int]:
    """Return a class's number, or 0/1 for every attribute.

    Args:
        label: a class, or attributes separated by commas; "" for none of them.
        task: ``kind`` and ``classes``.

    Raises:
        DataError: the model does not know it.
    """
    if not isinstance(label, str):
        raise DataError(f"label {label!r} is no text, allowed: {', '.join(task['classes'])}")
    label = normal_name(label)  # as the names of classes were read
    classes, named = list(task["classes"]), [name.strip() for name in label.split(",") if name.strip()]
    if task["kind"] == "classification":
        named = [label]
    unknown = [name for name in named if name not in classes]
    if unknown:
        raise DataError(f"label {', '.join(unknown)!r} is unknown to the model, allowed: {', '.join(classes)}")
    if task["kind"] == "classification":
        return classes.index(named[0])
    return [int(name in named) for name in classes]


def _serve(
    bundle: Bundle, people: list[dict[str, Any]], folder: Path, *, secret_file: str | Path | None, dry_run: bool,
    cpu: bool, threads: int,
) -> dict[str, Any]:  # fmt: skip
    """Run the isolated process, which writes the new files into ``folder``, and return what it says."""
    kind = str(bundle.note["spec"]["kind"])
    own = [] if kind in METHODS else [kind.partition(":")[0].partition(".")[0]]
    person_of = {each["name"]: each["person"] for each in people}
    arguments = {
        "model_path": str(bundle.model), "artefact_path": str(bundle.artefact) if bundle.artefact else None,
        "photos": [
            {"path": str(each["path"]), "number": number_of(each["person"]), "label": each["label"]} for each in people
        ],
        "spec": dict(bundle.note["spec"]), "stored_px": list(bundle.note["stored_px"]), "seed": bundle.note["seed"],
        "natural": [number_of(person_of[name]) for name in natural_order(person_of)],
        "dry_run": dry_run, "gpus": int(lease_gpu(0 if cpu else 1) is not None), "threads": threads,
    }  # fmt: skip
    inputs = [bundle.model, *([bundle.artefact] if bundle.artefact else []), *(each["path"] for each in people)]
    run_isolated(
        "oneshui.bundles.serve:serve", arguments, readable=inputs, output=folder, modules=own,
        withheld=[secret_file or bundle.key_beside],
    )  # fmt: skip
    answers = folder / ANSWERS
    said: dict[str, Any] = parse_json(answers.read_bytes())
    answers.unlink()
    strange = {path.name for path in folder.iterdir()} - {MODEL, ARTEFACT}
    if strange:
        raise BundleError(
            f"{kind} left {', '.join(sorted(strange))} beside the model, which must not get into a bundle. Correct it."
        )
    return said


def _left(bundle: Bundle, people: list[dict[str, Any]], said: Mapping[str, Any]) -> dict[str, int]:
    """Return the people whom the new bundle knows, with how many numbers it holds of each."""
    gone = {each["person"] for each in people}
    left = {person: n for person, n in bundle.people.items() if person not in gone}
    kept = said.get("kept")
    if kept is None:
        return left
    return {person: kept[str(number_of(person))] for person in left if str(number_of(person)) in kept}


def _told(people: list[dict[str, Any]], said: Mapping[str, Any], bundle: Bundle) -> list[dict[str, Any]]:
    """Return what a receipt says of each person."""
    known = bundle.people
    return [
        {
            "person": each["person"], "known": each["person"] in known,
            "label_from": PREDICTED if each["label"] is None else GIVEN, **answer,
            "numbers_removed": known.get(each["person"], 0),
        }
        for each, answer in zip(people, said["people"], strict=True)
    ]  # fmt: skip


def _receipt(
    bundle: Bundle, people: list[dict[str, Any]], said: Mapping[str, Any], left: Mapping[str, int],
    new: Mapping[str, Any], seconds: float,
) -> dict[str, Any]:  # fmt: skip
    found, asked = said["diagnostics"], {each["person"] for each in people}
    outcome = outcome_of(found)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": seconds,
        "unlearning_seconds": said["seconds"], "isolation": said["isolation"], "new": new, "moved": said["moved"],
        "diagnostics": found, "people": _told(people, said, bundle), "people_before": len(bundle.people),
        "people_after": len(left), "no_longer_served": len(bundle.people.keys() - left.keys() - asked),
        "stays": bundle.stays, "outcome": outcome, "meaning": OUTCOMES[outcome],
    }  # fmt: skip


def _hashes(folder: Path, note: Mapping[str, Any]) -> dict[str, str]:
    """Return SHA-256 of each file of a bundle."""
    return {NOTE: sha256_file(folder / NOTE), **{name: note["files"][name] for name in (MODEL, ARTEFACT)
                                                 if name in note["files"]}}  # fmt: skip
