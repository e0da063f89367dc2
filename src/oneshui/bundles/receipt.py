"""Receipts: what was done, for people and for machines; and whether one tells the truth about two bundles."""

import math
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from oneshui.bundles.bundle import NOTE, Bundle, Key, check_format, number_of
from oneshui.errors import BundleError
from oneshui.files import parse_json, read_regular, sha256_file, wrong_entry
from oneshui.isolation import AUDIT_HOOK, LANDLOCK

#: outcome of a request -> what it means
OUTCOMES = {
    "served": "The model was changed. How far methods make a model forget is another question: docs/results.md.",
    "partly served": "Some of those who asked are not forgotten: the fold model of the new bundle was trained on them.",
    "saturated": "The step was too small to matter: nothing was forgotten. Try another method, or other "
    "hyper-parameters.",
    "diverged": "The model is destroyed: do not use it. Lower the method's learning rate.",
}
_ENTRIES = {
    "format": "a whole number >= 0", "at": "text", "seconds": "a number", "isolation": "text", "method": "text",
    "spec": "a mapping", "old": "a mapping", "new": "a mapping", "moved": "a number", "stays": "text",
    "people_before": "a whole number >= 0", "people_after": "a whole number >= 0",
    "no_longer_served": "a whole number >= 0", "outcome": "text", "meaning": "text", "diagnostics": "numbers by name",
    "seal": "text",
}  # fmt: skip
_ISOLATION = {
    LANDLOCK: "the system kept the process that unlearned from every file but the model, what the method keeps and the "
    "photos",
    AUDIT_HOOK: "Python kept itself from opening other files than the model, what the method keeps and the photos; "
    "compiled libraries were not watched",
}
_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border: 1px solid #999 }
td.hash { font: 13px monospace; overflow-wrap: anywhere }
"""
#: what ``verify`` looks at with the key only
SEALED = "the receipt is as it was sealed"
#: share by which the distance between two models may differ when it is computed on another machine
_CLOSE = 1e-6


def outcome_of(diagnostics: Mapping[str, float]) -> str:
    """Return the outcome of a request, a key of ``OUTCOMES``.

    Args:
        diagnostics: what the method says of its step.
    """
    if diagnostics.get("blown_up"):
        return "diverged"
    if diagnostics.get("saturated"):
        return "saturated"
    return "partly served" if diagnostics.get("forgotten_share", 1.0) < 1.0 else "served"


def page_of(receipt: Mapping[str, Any]) -> str:
    """Return a receipt as a page of HTML that needs nothing beside it."""
    lost, people = receipt["no_longer_served"], f"the bundle knew {receipt['people_before']}, it knows "
    people += f"{receipt['people_after']} now"
    if lost:
        people += f"; {lost} did not ask, but cannot be served any more: what served them was trained on who asked"
    facts = {
        "When": f"{receipt['at']}, {receipt['seconds']:.1f} s", "Method": receipt["method"],
        "Outcome": f"{receipt['outcome']}. {receipt['meaning']}", "People": people,
        "Weights moved by": f"{receipt['moved']:.3g} of their size",
        "Still there": receipt["stays"] or "nothing that comes from the training data, but the weights themselves",
        "Isolation": f"{receipt['isolation']}: {_ISOLATION.get(receipt['isolation'], 'unknown')}",
    }  # fmt: skip
    facts |= {f"Diagnostics: {name}": f"{value:.4g}" for name, value in receipt["diagnostics"].items()}
    facts |= {f"Hyper-parameter: {name}": value for name, value in receipt["spec"].items()}
    columns = ("Person", "Known", "Label", "Said by", "Sure of it before", "after", "Answer before", "after",
               "Numbers removed")  # fmt: skip
    asked = [
        (
            each["person"], "yes" if each["known"] else "no", _words(each["label"]), each["label_from"],
            _percent(each["before"]["sure_of_label"]), _percent(each["after"]["sure_of_label"]),
            _words(each["before"]["answer"]), _words(each["after"]["answer"]), each["numbers_removed"],
        )
        for each in receipt["people"]
    ]  # fmt: skip
    files = [(side, name, digest) for side in ("old", "new") for name, digest in receipt[side].items()]
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        "<title>Receipt of a request to be forgotten</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Receipt of a request to be forgotten</h1>",
        "<p>This page holds no photo and no name. A person is a keyed hash of their name: whoever has the key can "
        "compute it again. To check the receipt: <code>oneshui verify RECEIPT.json OLD NEW</code>.</p>",
        "<h2>What was done</h2>", _table((), facts.items()), "<h2>Who asked</h2>", _table(columns, asked),
        "<h2>Files (SHA-256)</h2>", _table(("Bundle", "File", "Hash"), files), "</body></html>\n",
    ])  # fmt: skip


def _table(head: tuple[str, ...], rows: Any) -> str:
    top = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _cell(value: Any) -> str:
    text = str(value)
    return f'<td class="hash">{text}</td>' if len(text) == 64 and text.isalnum() else f"<td>{escape(text)}</td>"


def _words(label: Any) -> str:
    return label if isinstance(label, str) else ", ".join(label) or "none of the attributes"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def read_receipt(path: str | Path) -> dict[str, Any]:
    """Return the receipt in a file.

    Raises:
        BundleError: there is none in it.
    """
    path = Path(path)
    try:
        found = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BundleError(f"{path} is not a receipt ({reason}). Name the .json file that `forget` wrote.") from error
    check_format(path, found)
    wrong = wrong_entry(found, _ENTRIES, _ENTRIES)
    people = found.get("people") if isinstance(found, dict) else None
    if not wrong and not (isinstance(people, list) and all(
        isinstance(each, dict) and isinstance(each.get("person"), str) for each in people
    )):  # fmt: skip
        wrong = "no people"
    if wrong:
        raise BundleError(f"{path} is not a receipt: it has {wrong}. Name the .json file that `forget` wrote.")
    return dict(found)


def verify(
    receipt: str | Path, old: str | Path, new: str | Path, *, key: str | Path | None = None
) -> list[dict[str, Any]]:
    """Compare a receipt with the bundles before and after the request.

    Args:
        receipt: its ``.json`` file.
        old: folder of the bundle before.
        new: folder of the bundle after.
        key: file of their key; None: beside one of them, or seals are not looked at.

    Returns:
        What was looked at, in order: ``check``, in words, and ``holds``.

    Raises:
        BundleError: one of the three cannot be read, or is damaged.
    """
    said = read_receipt(receipt)
    before, after = Bundle.read(old), Bundle.read(new)
    places = [Path(key)] if key is not None else [each.key_beside for each in (before, after)]
    secret = next((Key.read(place) for place in places if key is not None or place.exists()), None)
    return [{"check": text, "holds": bool(holds)} for text, holds in _checks(said, before, after, secret)]


def _checks(said: Mapping[str, Any], old: Bundle, new: Bundle, key: Key | None) -> Iterator[tuple[str, bool]]:
    for side, bundle in (("old", old), ("new", new)):
        for name in dict.fromkeys((*said[side], NOTE, *bundle.note["files"])):  # one that it leaves out is none of it
            path = bundle.folder / name
            same = path.is_file() and sha256_file(path) == said[side].get(name)
            yield f"{path} is the file of the receipt", same
    if key is not None:
        yield SEALED, key.has_sealed(said)
        for bundle in (old, new):
            own = key.fingerprint == bundle.note["key"] and key.has_sealed(bundle.note)
            yield f"{bundle.folder} is as it was sealed", own
    asked, before, after = {each["person"] for each in said["people"]}, old.people, new.people
    known = {each["person"] for each in said["people"] if each.get("known")}
    yield "the old bundle knew whom the receipt says it knew", known == asked & before.keys()
    yield "the new bundle knows none of those who asked", not asked & after.keys()
    yield "the new bundle knows nobody whom the old one did not", after.keys() <= before.keys()
    lost = len(before.keys() - after.keys() - asked)
    yield "nobody else was taken out than the receipt says", lost == said["no_longer_served"]
    yield "the numbers of people are those of the receipt", (len(before), len(after)) == (
        said["people_before"], said["people_after"]
    )  # fmt: skip
    yield "one more request was served", new.note["served"] == old.note["served"] + 1
    yield "method and hyper-parameters are the same", new.note["spec"] == old.note["spec"] == said["spec"]
    yield "what the method keeps is of the people of the new bundle only", _keeps_only(new)
    distance = _distance(old, new)
    yield (
        f"the weights moved by {distance:.3g} of their size",
        distance == said["moved"] or abs(distance - said["moved"]) <= _CLOSE * distance,
    )


def _keeps_only(bundle: Bundle) -> bool:
    """Tell whether an artefact has entries of the people of its bundle, and of nobody else."""
    import torch  # not before it is needed: it takes seconds

    from oneshui.tensors import load_tensors

    if bundle.artefact is None:
        return True
    tensors, _ = load_tensors(bundle.artefact, torch.device("cpu"))
    return "identities" not in tensors or sorted(tensors["identities"].tolist()) == sorted(
        map(number_of, bundle.people)
    )


def _distance(old: Bundle, new: Bundle) -> float:
    """Return how far the weights have moved, ||new - old|| / ||old||."""
    import torch

    from oneshui.methods.base import relative_change
    from oneshui.tensors import load_tensors

    before, after = (load_tensors(bundle.model, torch.device("cpu"))[0] for bundle in (old, new))
    floats = {name: tensor for name, tensor in before.items() if tensor.is_floating_point()}
    fit = before.keys() == after.keys() and all(t.shape == after[name].shape for name, t in before.items())
    return relative_change(floats, after) if fit else math.nan
