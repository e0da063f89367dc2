"""The folder of a bundle, and the key without which nobody can tell whose entries it holds. No torch here."""

import contextlib
import hashlib
import hmac
import json
import os
import platform
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from oneshui import __version__
from oneshui.data.names import normal_name, stands_for_nothing
from oneshui.errors import BundleError
from oneshui.files import (
    TASK,
    parse_json,
    read_header,
    read_regular,
    require_regular,
    sha256_file,
    write_text,
    wrong_entry,
)
from oneshui.folders import own_folder
from oneshui.log import logger
from oneshui.methods import METHODS

FORMAT = 1
MODEL, ARTEFACT, NOTE = "model.safetensors", "artefact.safetensors", "bundle.json"
#: what the isolated process says of a request, beside the new files; never in a bundle
ANSWERS = "answers.json"
#: of a request that a bundle has not served; the same for whoever the bundle never knew
_UNKNOWN = "the name is misspelled, the model was never trained on them, or they were forgotten already"

_ENTRIES = {
    "format": "a whole number >= 0", "oneshui": "text", "versions": "a mapping", "source": "a mapping",
    "model": "a mapping", "stored_px": "two sizes in px, 1 to 65536, or null", "method": "text", "spec": "a mapping",
    "seed": "a whole number >= 0", "key": "text", "people": "a mapping", "served": "a whole number >= 0",
    "files": "a mapping", "seal": "text",
}  # fmt: skip
_MODEL = {"architecture": "text", "task": "a mapping", "input_px": "a whole number >= 0"}


@dataclass(frozen=True)
class Key:
    """What turns names into hashes that nobody can guess the names of, and seals what a bundle says of itself.

    Attributes:
        secret: 32 random bytes.
    """

    secret: bytes

    @classmethod
    def new(cls) -> "Key":
        """Return a key that nobody has."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def read(cls, path: Path) -> "Key":
        """Return the key in a file.

        Raises:
            BundleError: there is none in it.
        """
        try:
            text = read_regular(path).decode("ascii").strip()
            secret = bytes.fromhex(text)
            if len(secret) != 32 or len(text) != 64:
                raise ValueError("it does not hold 64 hexadecimal digits")
        except (OSError, ValueError) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else "it does not hold 64 hex digits"
            raise BundleError(f"{path} is not a key of bundles ({reason}). Name the file that `pack` made.") from error
        if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning("%s can be read by others than you. Close it: chmod 600 %s", path, path)
        return cls(secret)

    def save(self, path: Path) -> None:
        """Write the key to a new file that only its owner can read.

        Raises:
            BundleError: there is such a file, or it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{self.secret.hex()}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BundleError(f"the key {path} cannot be written ({error.strerror}). Name another file.") from error

    @property
    def fingerprint(self) -> str:
        """8 hex digits that say which key a bundle belongs to, and nothing of the key."""
        return self._digest("key", "")[:8]

    def person(self, name: str) -> str:
        """Return what a bundle calls a person, 64 hex digits. Names are compared as in data sets (``data.names``)."""
        return self._digest("person", normal_name(name))

    def seal(self, note: Mapping[str, Any]) -> str:
        """Return the seal of what a bundle or a receipt says, whatever its own entry ``seal``."""
        rest = {name: value for name, value in note.items() if name != "seal"}
        return self._digest("seal", json.dumps(rest, sort_keys=True, separators=(",", ":")))

    def sealed(self, note: Mapping[str, Any]) -> dict[str, Any]:
        """Return a note with its seal."""
        return {**note, "seal": self.seal(note)}

    def has_sealed(self, note: Mapping[str, Any]) -> bool:
        """Tell whether a note is as it was sealed."""
        return hmac.compare_digest(str(note.get("seal")), self.seal(note))

    def _digest(self, purpose: str, text: str) -> str:
        return hmac.new(self.secret, f"oneshui {purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def number_of(person: str) -> int:
    """Return the number that stands for a person in tensors: the first 63 bits of their hash."""
    return int(person[:16], 16) >> 1


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself.

    Attributes:
        folder: where it lies.
        note: ``bundle.json``; docs/bundles.md lists its entries.
    """

    folder: Path
    note: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | Path, key: "Key | None" = None) -> "Bundle":
        """Return the bundle in a folder, once its files are what it says; with the key, once its seal is whole.

        Raises:
            BundleError: it is none, is of a newer version, a file is missing or was changed, or the key is another
                one's.
        """
        folder = Path(folder)
        bundle = cls(folder, note_of(folder))
        bundle._check_files()
        if key is not None:
            if key.fingerprint != bundle.note["key"]:
                raise BundleError(
                    f"the key is not that of {folder}: it has the fingerprint {key.fingerprint}, needed: "
                    f"{bundle.note['key']}. Name the key that `pack` made with it: --key FILE."
                )
            if not key.has_sealed(bundle.note):
                raise BundleError(
                    f"{folder / NOTE} was changed after it was sealed: it cannot be trusted. Restore it from a copy."
                )
        return bundle

    @classmethod
    def unlocked(cls, folder: str | Path, path: str | Path | None) -> "tuple[Bundle, Key]":
        """Return a bundle, checked with its key, and the key: from a file, or from the one beside it that has its name.

        Raises:
            BundleError: as ``read``, or there is no key.
        """
        found = cls(Path(folder), note_of(Path(folder)))
        if path is None and not found.key_beside.exists():
            raise BundleError(
                f"the key of {folder} is not beside it ({found.key_beside} does not exist). Name it: --key FILE. "
                "Without the key nobody can tell who is who in a bundle."
            )
        key = Key.read(found.key_beside if path is None else Path(path))
        return cls.read(folder, key), key

    @property
    def model(self) -> Path:
        """File of the weights."""
        return self.folder / MODEL

    @property
    def artefact(self) -> Path | None:
        """File of what the method keeps, or None."""
        return self.folder / ARTEFACT if ARTEFACT in self.note["files"] else None

    @property
    def people(self) -> dict[str, int]:
        """Hash of each person -> how many numbers the artefact holds of that person alone."""
        return dict(self.note["people"])

    @property
    def task(self) -> dict[str, Any]:
        """``kind`` and ``classes`` of what the model answers."""
        return dict(self.note["model"]["task"])

    @property
    def needs_to_know(self) -> bool:
        """Whether its method leaves the model as it is for somebody whom it does not know."""
        kind = self.note["spec"]["kind"]
        return kind in METHODS and METHODS[kind].folds

    @property
    def for_unknown(self) -> str:
        """What its method does for somebody whom it does not know, as it goes on after its name."""
        kind = self.note["spec"]["kind"]
        if self.needs_to_know:
            return "leaves the model as it is"
        return (
            kind in METHODS and METHODS[kind].unknown
        ) or "does the same as for anybody: it looks at photo and label"

    @property
    def stays(self) -> str:
        """What the method keeps of all people together."""
        kind = self.note["spec"]["kind"]
        if kind in METHODS:
            return METHODS[kind].stays
        return f"what {kind} keeps beside single people" if self.artefact else ""

    @property
    def key_beside(self) -> Path:
        """Where its key is looked for if it is not named."""
        return self.folder.absolute().parent / key_name(self.note["key"])

    def describe_unknown(self, names: Collection[str]) -> str:
        """Return the refusal of a request of people whom the bundle does not know."""
        said = f"{self.folder} does not know {', '.join(map(repr, names))}: {_UNKNOWN}. For somebody unknown "
        said += f"{self.note['method']} {self.for_unknown}. Correct the name"
        return f"{said}." if self.needs_to_know else f"{said}, or serve the request all the same: --allow-unknown."

    def _check_files(self) -> None:
        for name, wanted in self.note["files"].items():
            path = self.folder / name
            try:
                require_regular(path)
                found = sha256_file(path)
            except OSError as error:
                raise BundleError(
                    f"{self.folder} lacks {name} ({error.strerror}): the bundle is incomplete. Restore it from a copy."
                ) from error
            if found != wanted:
                raise BundleError(
                    f"{path} was changed or cut short: its SHA-256 is {found[:12]}..., {NOTE} says "
                    f"{wanted!s:.12}... Restore it from a copy."
                )
        spec = read_header(self.model).get("model_spec")
        if spec != self.note["model"]:
            raise BundleError(f"{self.model} and {NOTE} describe two models. Restore the bundle from a copy.")


def key_name(fingerprint: str) -> str:
    """Return the name of a key's file."""
    return f"oneshui-{fingerprint}.key"


def note_of(folder: Path) -> dict[str, Any]:
    """Return what a bundle says of itself, every entry of its type; its files are not looked at.

    Raises:
        BundleError: it cannot be read, is of a newer version, or has an entry that is missing or of another type.
    """
    path = folder / NOTE
    try:
        note = parse_json(read_regular(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{folder} is not a bundle: there is no {NOTE} in it. `oneshui pack` makes one.") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}). Restore it from a copy.") from error
    check_format(path, note)
    wrong = wrong_entry(note, _ENTRIES, _ENTRIES)
    if not wrong and not (note["files"].keys() <= {MODEL, ARTEFACT} and MODEL in note["files"]):
        wrong = f"files = {list(note['files'])}, allowed: {MODEL}, and {ARTEFACT} or not"
    people = {} if wrong else note["people"]
    if not wrong and not _is_hex(note["key"], 8):
        wrong = "a key that is no fingerprint of one"
    if not all(_is_hex(person, 64) and type(n) is int and n >= 0 for person, n in people.items()):
        wrong = "people who are no hashes with numbers"
    if not wrong and (not isinstance(note["spec"].get("kind"), str) or note["stored_px"] is None):
        wrong = "no kind of method or size of photos"
    wrong = wrong or wrong_entry(note["model"], _MODEL, _MODEL) or wrong_entry(note["model"]["task"], TASK, TASK)
    if wrong:
        raise BundleError(f"{path} has {wrong}. Restore it from a copy.")
    return dict(note)


def check_format(path: Path, note: Any) -> None:
    """Refuse a bundle or receipt of a later version, before anything else of it is looked at.

    Raises:
        BundleError: it is one.
    """
    found = note.get("format") if isinstance(note, dict) else None
    if type(found) is int and found > FORMAT:
        raise BundleError(
            f"{path} was written by a newer version (format {found}, oneshui {note.get('oneshui')!s:.20}); this one, "
            f"{__version__}, reads up to format {FORMAT}. Install the newer version."
        )


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not set(text) - set("0123456789abcdef")


def check_name(name: str) -> str:
    """Return the normal form of a name that somebody gave.

    Raises:
        BundleError: it is none.
    """
    try:
        normal = normal_name(name)
        normal.encode()
    except (AttributeError, TypeError, UnicodeEncodeError):  # no text, or bytes of a terminal that are none
        normal = ""
    if not normal or stands_for_nothing(normal):
        raise BundleError(f"the name {name!r} is none. Name the person as the training data does: --photo NAME=FILE.")
    return normal


def check_new(path: Path, option: str) -> None:
    """Refuse a place where there is something: nothing is ever replaced.

    Raises:
        BundleError: there is.
    """
    if os.path.lexists(path):
        raise BundleError(f"{path} is there, and nothing is replaced. Name another place: {option}.")


def versions() -> dict[str, str]:
    """Return the versions of what makes the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "timm")}}


@dataclass(frozen=True)
class NewBundle:
    """A bundle that is being made.

    Attributes:
        folder: where its files are put together.
        out: where it will lie.
    """

    folder: Path
    out: Path

    def publish(self, also: Callable[[], None] = lambda: None) -> None:
        """Move it to its place, once ``also`` has written what goes with it; nobody else can come to that place then.

        Raises:
            BundleError: somebody was there first.
        """
        try:
            os.mkdir(self.out)  # a rename would replace an empty folder of somebody else
        except FileExistsError:
            check_new(self.out, "--out NEW")
            raise
        try:
            also()
            os.rename(self.folder, self.out)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(self.out)
            raise


@contextlib.contextmanager
def new_bundle(out: Path) -> Iterator[NewBundle]:
    """Yield a place for the files of a bundle, which are gone with the end of the block unless it is published."""
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with own_folder(parent, out.name) as stage:
        yield NewBundle(stage / "bundle", out)


def write_note(folder: Path, note: Mapping[str, Any], key: Key) -> dict[str, Any]:
    """Write the note of a bundle whose other files lie in ``folder``, and return it, complete and sealed."""
    names = [name for name in (MODEL, ARTEFACT) if (folder / name).exists()]
    people = dict(sorted(note["people"].items()))
    whole = key.sealed({
        **note, "format": FORMAT, "oneshui": __version__, "versions": versions(), "people": people,
        "key": key.fingerprint, "files": {name: sha256_file(folder / name) for name in names},
    })  # fmt: skip
    write_text(folder / NOTE, json.dumps(whole, indent=1) + "\n")
    return whole
