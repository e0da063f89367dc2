"""What a bundle holds, and what it can do."""

from pathlib import Path
from typing import Any

from oneshui.bundles.bundle import Bundle, Key, check_name, note_of


def show(bundle: str | Path, *, person: str | None = None, key: str | Path | None = None) -> dict[str, Any]:
    """Return what a bundle says of itself, after its files were compared with their hashes.

    Args:
        bundle: its folder.
        person: name of somebody about whom it is to say what it keeps.
        key: file of its key, needed for ``person``. With it, or with the key beside the bundle, the seal is looked at.

    Returns:
        The entries of ``bundle.json``, but for ``people``; and ``folder``, ``known`` (people), ``kept`` (fewest and
        most numbers kept of one alone), ``stays``, ``needs_to_know``, ``for_unknown``, ``sealed`` (null: without a key
        nobody can tell), and ``person`` (``hash``, ``known``, ``numbers``), if one was named.

    Raises:
        BundleError: it is none or was changed, or the key is another one's.
    """
    secret: Key | None = None
    if key is None and person is None and not Bundle(Path(bundle), note_of(Path(bundle))).key_beside.exists():
        found = Bundle.read(bundle)
    else:
        found, secret = Bundle.unlocked(bundle, key)
    sizes = found.people.values()
    said: dict[str, Any] = {name: value for name, value in found.note.items() if name != "people"}
    said |= {
        "folder": str(found.folder), "known": len(sizes), "kept": [min(sizes, default=0), max(sizes, default=0)],
        "stays": found.stays, "needs_to_know": found.needs_to_know, "for_unknown": found.for_unknown,
        "sealed": True if secret else None,
    }  # fmt: skip
    if person is not None and secret is not None:
        who = secret.person(check_name(person))
        said["person"] = {"hash": who, "known": who in found.people, "numbers": found.people.get(who, 0)}
    return said
