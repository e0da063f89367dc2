"""Names of people: what is one name, what is none, and what nobody can tell."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneshui.data.names import People, look_alike, normal_name
from oneshui.errors import DataError


@pytest.mark.parametrize(
    "spelling",
    [
        "Zoe\u0308 1",
        "\ufeffZo\xeb 1",
        "Zo\xeb 1\u200b",
        "Zo\u200d\xeb 1",
        "\xa0Zo\xeb 1 ",
        "Zo\xeb\xa01",
        "Zo\xeb\u20091",
        "Zo\xeb\t1",
        "Zo\xeb 1\x00",
        "\u202aZo\xeb 1\u202c",
        "Zo\xad\xeb 1",
        "Zoe\u200b\u0308 1",
        "Zo\xeb 1\ufe0f",
    ],
)
def test_spellings_that_look_the_same_are_one_name(spelling: str) -> None:
    assert normal_name(spelling) == "Zo\xeb 1"


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=30))
def test_the_normal_form_is_final_and_hides_nothing(text: str) -> None:
    name = normal_name(text)
    assert normal_name(name) == name
    assert normal_name(unicodedata.normalize("NFD", name)) == name
    assert name == name.strip()
    assert not any(unicodedata.category(character) in ("Cc", "Cf") for character in name)


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_visible_ascii_names_stay_what_they_are(text: str) -> None:
    assert normal_name(text) == text


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Ann Lee", "ann lee"), ("Ann Lee", "Ann  Lee"), ("Ann Lee", "AnnLee"), ("7", "007"), ("123", "123.0"),
        ("123", "123."), ("+5", "5"), ("1.50", "1.5"), ("\uff21nn", "Ann"), ("stra\xdfe", "STRASSE"),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_refused_with_both_rows_or_kept_apart_on_purpose(first: str, second: str) -> None:
    people = People()
    assert people.name(first, "m.csv:2") == normal_name(first)
    with pytest.raises(DataError) as raised:
        people.name(second, "m.csv:9")
    for part in ("m.csv:9:", "m.csv:2", repr(normal_name(first)), repr(normal_name(second)), "similar_names: apart"):
        assert part in str(raised.value)
    apart = People(apart=True)
    assert apart.name(first, "m.csv:2") != apart.name(second, "m.csv:9")


@pytest.mark.parametrize(("first", "second"), [("7", "70"), ("1.5", "15"), ("a1", "a01"), ("Li Na", "Lina B")])
def test_different_names_stay_apart(first: str, second: str) -> None:
    assert look_alike(first) != look_alike(second)


@pytest.mark.parametrize(
    "nothing", ["nan", "NaN", "NULL", "None", "NA", "n/a", "#N/A", "<NA>", "NaT", " nan\u200b", "?"]
)
def test_what_programs_write_for_nothing_is_no_name(nothing: str) -> None:
    with pytest.raises(DataError, match=r"m\.csv:4: the identity is .*where a value is missing"):
        People().name(nothing, "m.csv:4")


@pytest.mark.parametrize("nothing", ["", "  ", "\u200b", "\ufeff \xa0"])
def test_an_empty_name_is_refused_and_said_to_be_invisible(nothing: str) -> None:
    with pytest.raises(DataError, match=r"m\.csv:4: the identity is empty") as raised:
        People().name(nothing, "m.csv:4")
    assert ("only invisible" in str(raised.value)) == bool(nothing.strip())


@pytest.mark.parametrize("rounded", ["1.23457E+11", "1e+20", "2,5E+12"])
def test_a_number_that_a_spreadsheet_rounded_is_no_name(rounded: str) -> None:
    with pytest.raises(DataError, match="a spreadsheet has rounded a long number"):
        People().name(rounded, "m.csv:4")


def test_long_numbers_that_all_end_in_zeros_were_rounded() -> None:
    people = People()
    for i in range(3):
        people.name(f"1234567890123{i:02d}00", f"m.csv:{i + 2}")
    with pytest.raises(DataError, match=r"m\.csv:2: .*all 3 numbers of more than 15 digits end in zeros"):
        people.finish()
    people.name("12345678901234567", "m.csv:5")
    assert people.finish() == ()


def test_what_was_merged_is_said_with_an_example() -> None:
    people = People()
    names = [
        people.name(text, f"m.csv:{i}")
        for i, text in enumerate(["Zo\xeb", "Zoe\u0308", "Bob", "Zoe\u0308", "Zo\xeb\u200b"], 2)
    ]
    assert names == ["Zo\xeb", "Zo\xeb", "Bob", "Zo\xeb", "Zo\xeb"]
    (note,) = people.finish()
    assert note.startswith("2 other spellings of 1 names were taken for the same people")
    assert r"'Zoe\u0308' (m.csv:3) for 'Zo\xeb' (m.csv:2)" in note
