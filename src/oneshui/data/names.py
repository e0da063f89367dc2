"""Names of people: one spelling for one person, or a refusal that shows both.

Two spellings that look the same are one name: Unicode writes "Zoë" in two ways, and text that was copied from a page
or a file name brings invisible characters and odd blanks along. Two that only look alike are nobody's to merge: capital
letters, blanks inside, "7" and "007", or "123" and "123.0", which a spreadsheet makes of each other.
"""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from oneshui.errors import DataError

#: what programs write where there is nothing
_NOTHING = frozenset({
    "nan", "-nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "<nan>", "nat", "undefined", "unknown", "inf",
    "-inf", "#value!", "#ref!", "#name?", "#null!", "#div/0!", "-", "?",
})  # fmt: skip
_ROUNDED = re.compile(r"[+-]?\d+([.,]\d+)?[eE]\+\d+")
#: digits of a number that a spreadsheet keeps; it writes zeros for the others
_KEPT_DIGITS = 15
_MIN_ROUNDED = 3


def normal_name(text: str) -> str:
    """Return ``text`` in Unicode's form NFC, without invisible characters and blanks at its ends, odd blanks as " ".

    A text that looks the same in all its spellings has one. Blanks inside stay as many as they are.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    text = "".join(_visible(character) for character in unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", text).strip()  # what stood between a letter and its accent is gone


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "Z" or character in "\t\n\r\v\f":
        return " "
    return "" if category in ("Cc", "Cf") or "\ufe00" <= character <= "\ufe0f" else character


def stands_for_nothing(name: str) -> bool:
    """Return whether a name is what programs write where there is none."""
    return normal_name(name).casefold() in _NOTHING


def look_alike(name: str) -> str:
    """Return what two names share that only look alike: no capitals, no blanks, a number by its value."""
    text = "".join(unicodedata.normalize("NFKC", name).casefold().split())
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", text):
        try:
            return str(Decimal(text).normalize())
        except InvalidOperation:
            return text
    return unicodedata.normalize("NFKC", text)


class People:
    """The names of a data set's people, checked one row after the other.

    Args:
        apart: names that only look alike are different people, on purpose.
    """

    def __init__(self, *, apart: bool = False) -> None:
        self._apart = apart
        #: normal name -> spelling and row where it stands first
        self._first: dict[str, tuple[str, str]] = {}
        #: spelling -> normal name and row, of spellings that are not the first of their name
        self._merged: dict[str, tuple[str, str]] = {}
        self._known: dict[str, str] = {}
        self._alike: dict[str, str] = {}

    def name(self, spelling: str, source: str) -> str:
        """Return the one name of the person.

        Args:
            spelling: as it stands in the file.
            source: row that it stands in, for messages.

        Raises:
            DataError: it is empty, stands for nothing, was rounded by a spreadsheet, or looks like another name.
        """
        if spelling in self._known:
            return self._known[spelling]
        name = normal_name(spelling)
        self._refuse_nothing(name, spelling, source)
        if name in self._first:
            self._merged[spelling] = (name, source)
        else:
            self._refuse_alike(name, source)
            self._first[name] = (spelling, source)
        self._known[spelling] = name
        return name

    def _refuse_nothing(self, name: str, spelling: str, source: str) -> None:
        if not name:
            said = "" if not spelling.strip() else f" (only invisible characters: {spelling!a})"
            raise DataError(
                f"{source}: the identity is empty{said}. Every image needs one: fill it in or drop the row."
            )
        if stands_for_nothing(name):
            raise DataError(
                f"{source}: the identity is {name!r}, which programs write where a value is missing. All such rows "
                "would become one person: fill it in or drop the row."
            )
        if _ROUNDED.fullmatch(name):
            raise DataError(
                f"{source}: the identity is {name!r}: a spreadsheet has rounded a long number, and several people may "
                "share what is left. Export the file again with this column as text."
            )

    def _refuse_alike(self, name: str, source: str) -> None:
        if self._apart:
            return
        other = self._alike.setdefault(look_alike(name), name)
        if other != name:
            raise DataError(
                f"{source}: the identity {name!r} looks like {other!r} at {self._first[other][1]}: one person or two? "
                "Write one name in one way; if all such names are different people, set the option similar_names: "
                "apart (manifests)."
            )

    def finish(self) -> tuple[str, ...]:
        """Return what was merged, in words.

        Raises:
            DataError: all long numbers end in zeros: a spreadsheet has rounded them.
        """
        long = [name for name in self._first if name.isascii() and name.isdigit() and len(name) > _KEPT_DIGITS]
        if len(long) >= _MIN_ROUNDED and not self._apart and all(not name[_KEPT_DIGITS:].strip("0") for name in long):
            raise DataError(
                f"{self._first[long[0]][1]}: the identity is {long[0]!r}, and all {len(long)} numbers of more than "
                f"{_KEPT_DIGITS} digits end in zeros: a spreadsheet has rounded them, and several people may share "
                "what is left. Export the file again with this column as text; if they are right, set the option "
                "similar_names: apart (manifests)."
            )
        if not self._merged:
            return ()
        spelling, (name, source) = next(iter(self._merged.items()))
        first, first_source = self._first[name]
        people = len({name for name, _ in self._merged.values()})
        return (
            f"{len(self._merged):,} other spellings of {people:,} names were taken for the same people, for example "
            f"{spelling!a} ({source}) for {first!a} ({first_source}): they differ in Unicode form, invisible "
            "characters or blanks only",
        )


def normal_names(texts: Iterable[str]) -> list[str]:
    """Return the normal form of each of ``texts``; each different one is looked at once."""
    known: dict[str, str] = {}
    return [known[text] if text in known else known.setdefault(text, normal_name(text)) for text in texts]
