"""Annotation files, manifests and images as they arrive broken: each is one clear message, and never another error.

A message names the file and the row, is of plain sentences and ends in what to do.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from oneshui.data.layouts import LAYOUTS, Annotations, read_annotations
from oneshui.data.pictures import quiet, read_picture
from oneshui.data.probe import probe_images
from oneshui.errors import ConfigError, DataError, OneShuiError

HEAD = b"path,identity,label\n"
GOOD = HEAD + b"a.png,p,x\nb.png,q,y\n"
IDENTITY, ATTRIBUTE = "identity_CelebA.txt", "list_attr_celeba.txt"
MUFAC = "custom_train_dataset.csv"
MUFAC_HEAD = b"family_id,person_id,age_class,image_path\n"

Files = dict[str, bytes]


def manifest(text: bytes, **options: Any) -> tuple[str, Files, dict[str, Any]]:
    return "manifest", {"manifest.csv": text}, options


def rows(*lines: str, **options: Any) -> tuple[str, Files, dict[str, Any]]:
    return manifest(HEAD + "".join(f"{line}\n" for line in lines).encode(), **options)


def celeba(identity: bytes = b"1.jpg 5\n2.jpg 6\n", attribute: bytes = b"2\nMale\n1.jpg 1\n2.jpg -1\n") -> Any:
    return "celeba", {IDENTITY: identity, ATTRIBUTE: attribute}, {}


def mufac(train: bytes) -> Any:
    files = {MUFAC: MUFAC_HEAD + train}
    for i, part in enumerate(("val", "test")):
        files[f"custom_{part}_dataset.csv"] = MUFAC_HEAD + f"F9{i},D,a,x.jpg\n".encode()
    return "mufac", files, {}


def parquet(**columns: Any) -> Any:
    file = io.BytesIO()
    pd.DataFrame({"path": ["a.png", "b.png"], "label": ["x", "y"], **columns}).to_parquet(file)
    return "manifest", {"m.parquet": file.getvalue()}, {"file": "m.parquet"}


BAD_ANNOTATIONS: dict[str, tuple[tuple[str, Files, dict[str, Any]], list[str]]] = {
    # how text is stored
    "semicolons of a spreadsheet": (
        manifest(b"\xef\xbb\xbf" + GOOD.replace(b",", b";").replace(b"\n", b"\r\n")),
        ["manifest.csv:1: fields are separated by ';', save with commas"],
    ),
    "tabs": (manifest(GOOD.replace(b",", b"\t")), ["manifest.csv:1: fields are separated by tabs"]),
    "bars": (manifest(GOOD.replace(b",", b"|")), ["manifest.csv:1: fields are separated by '|'"]),
    "line of Excel about semicolons": (
        manifest(b"sep=;\n" + GOOD.replace(b",", b";")),
        ["manifest.csv:1:", "separated by ';'"],
    ),
    "Unicode text of a spreadsheet": (
        manifest(GOOD.decode().replace(",", "\t").encode("utf-16")),
        ["manifest.csv:1:", "separated by tabs"],
    ),
    "UTF-16 without a mark": (manifest(GOOD.decode().encode("utf-16-le")), ["manifest.csv:1:", "UTF-16 without"]),
    "Latin-1": (manifest(HEAD + b"a.png,Zo\xeb,x\n"), ["manifest.csv:2:", "0xeb is not UTF-8"]),
    "half a UTF-16 file": (manifest(b"\xff\xfe" + GOOD.decode().encode("utf-16-le")[:-1]), ["manifest.csv:", "utf-16"]),
    "filled up with zeros": (manifest(GOOD + bytes(4096)), ["manifest.csv:4:", "zero bytes", "cut off"]),
    "a parquet file called csv": (manifest(b"PAR1\x15\x00\x15\xe8"), ["manifest.csv:1:", "UTF-8"]),
    "nothing": (manifest(b""), ["manifest.csv: the file is empty"]),
    "blanks only": (manifest(b" \r\n\r\n"), ["manifest.csv: the file is empty"]),
    "header only": (manifest(HEAD), ["manifest.csv: no rows"]),
    # rows and columns
    "no header": (manifest(b"a.png,p,x\nb.png,q,y\n"), ["manifest.csv:1: no column path, identity"]),
    "header in capitals": (manifest(b"Path,Identity,Label\na.png,p,x\n"), ["no column path", "Path, Identity, Label"]),
    "column twice": (manifest(b"path,identity,label,label\na.png,p,x,x\n"), ["manifest.csv:1: column label appears"]),
    "column twice but for a blank": (
        manifest("path,identity,label,label\u200b\na.png,p,x,x\n".encode()),
        ["column label appears more than once"],
    ),
    "empty columns at the end": (
        manifest(b"path,identity,label,,\na.png,p,x,,\n"),
        ["manifest.csv:1: columns 4, 5 have no name"],
    ),
    "row too short": (rows("a.png,p,x", "b.png,q"), ["manifest.csv:3: 2 fields", "header has 3"]),
    "row too long": (rows("a.png,p,x", "b.png,q,y,z"), ["manifest.csv:3: 4 fields"]),
    "comma in a name": (rows("a.png,Lee, Ann,x"), ["manifest.csv:2: 4 fields", "quote values that hold a comma"]),
    "open quote": (rows("a.png,p,x", 'b.png,"q,y'), ["manifest.csv:3: not valid CSV"]),
    "quote inside": (rows('a.png,"p"q,x'), ["manifest.csv:2: not valid CSV"]),
    "blank line inside": (rows("a.png,p,x", "", "b.png,q,y"), ["manifest.csv:3: 0 fields"]),
    "cut off in a row": (manifest(GOOD + b"c.p"), ["manifest.csv:4: 1 fields"]),
    # people
    "no identity": (rows("a.png,,x"), ["manifest.csv:2: the identity is empty"]),
    "invisible identity": (rows("a.png,\u200b,x"), ["manifest.csv:2: the identity is empty (only invisible"]),
    "identity nan": (rows("a.png,p,x", "b.png,nan,y"), ["manifest.csv:3: the identity is 'nan'", "become one person"]),
    "identity NULL": (rows("a.png,NULL,x"), ["manifest.csv:2: the identity is 'NULL'"]),
    "identity NA": (rows("a.png,NA,x"), ["manifest.csv:2: the identity is 'NA'"]),
    "identity of a formula": (rows("a.png,#N/A,x"), ["manifest.csv:2: the identity is '#N/A'"]),
    "rounded identity": (rows("a.png,1.23457E+11,x"), ["manifest.csv:2:", "spreadsheet has rounded", "as text"]),
    "whole number and float": (
        rows("a.png,123,x", "b.png,123.0,x"),
        ["manifest.csv:3: the identity '123.0' looks like '123' at manifest.csv:2"],
    ),
    "leading zeros": (rows("a.png,7,x", "b.png,007,x"), ["manifest.csv:3: the identity '007' looks like '7'"]),
    "capitals": (rows("a.png,Ann,x", "b.png,ann,x"), ["manifest.csv:3:", "'ann' looks like 'Ann' at manifest.csv:2"]),
    "two blanks": (rows("a.png,Ann Lee,x", "b.png,Ann  Lee,x"), ["manifest.csv:3:", "one person or two?"]),
    "long numbers rounded": (
        rows(*(f"{i}.png,12345678901234{i}000,x" for i in range(4))),
        ["manifest.csv:2:", "all 4 numbers of more than"],
    ),
    "floats beyond whole numbers": (
        parquet(identity=[2.0**60, 2.0**60 + 4096]),
        ["column identity", "too large to be exact"],
    ),
    "missing person in parquet": (parquet(identity=["p", None]), ["m.parquet:2: the identity is empty"]),
    "nan in parquet": (parquet(identity=pd.array([1.0, float("nan")])), ["m.parquet:2: the identity is"]),
    "lists in parquet": (parquet(identity=[["p"], ["q"]]), ["m.parquet: column identity", "neither text nor numbers"]),
    "no parquet": (("manifest", {"m.parquet": b"PAR1 no"}, {"file": "m.parquet"}), ["m.parquet is not a readable"]),
    # paths
    "no path": (rows(",p,x"), ["manifest.csv:2: the image path is empty"]),
    "path upwards": (rows("../a.png,p,x"), ["manifest.csv:2: image path '../a.png' must lie inside"]),
    "path of the machine": (rows("/etc/passwd,p,x"), ["manifest.csv:2:", "must lie inside"]),
    "path of Windows": (rows("C:\\faces\\a.png,p,x"), ["manifest.csv:2:", "must lie inside", "with / between"]),
    "image twice": (rows("a.png,p,x", "./a.png,q,y"), ["manifest.csv:3: a.png is listed twice", "manifest.csv:2"]),
    # labels
    "no label": (rows("a.png,p,"), ["manifest.csv:2: the label (label) is empty"]),
    "invisible label": (rows("a.png,p,\u200b"), ["manifest.csv:2: the label (label) is empty"]),
    "unknown label": (rows("a.png,p,z", classes=["x", "y"]), ["manifest.csv:2: label (label) is 'z', allowed: x, y"]),
    "attribute that is no bit": (rows("a.png,p,0.5", label_columns="rest"), ["manifest.csv:2: attribute label is"]),
    # the published layouts
    "CelebA without an identity": (celeba(identity=b"1.jpg 5\n2.jpg\n"), [f"{IDENTITY}:2: 1 fields"]),
    "CelebA in NFD letters": (celeba(identity=b"1.jpg 5\n2.jpg e\xcc\x81\n"), [f"{IDENTITY}:2: identity", "integer"]),
    "CelebA with a float": (celeba(identity=b"1.jpg 5.0\n2.jpg 6\n"), [f"{IDENTITY}:1: identity '5.0'"]),
    "CelebA with other digits": (celeba(identity="1.jpg \u0665\n2.jpg 6\n".encode()), [f"{IDENTITY}:1: identity"]),
    "CelebA filled up with zeros": (
        celeba(identity=b"1.jpg 5\n2.jpg 6\n" + bytes(9)),
        [f"{IDENTITY}:3:", "zero bytes"],
    ),
    "CelebA as CSV": (
        celeba(identity=b"1.jpg,5\n2.jpg,6\n"),
        [f"{IDENTITY}:1: 1 fields, but a row is 'image identity'"],
    ),
    "CelebA cut off": (
        celeba(attribute=b"2\nMale\n1.jpg 1\n"),
        [f"{ATTRIBUTE}:1:", "says 2 images, but 1 rows follow"],
    ),
    "CelebA with 0 for -1": (
        celeba(attribute=b"2\nMale\n1.jpg 1\n2.jpg 0\n"),
        [f"{ATTRIBUTE}:4: attribute Male is '0'"],
    ),
    "CelebA with a lying count": (celeba(attribute=b"9" * 30 + b"\nMale\n1.jpg 1\n2.jpg 1\n"), [f"{ATTRIBUTE}:1:"]),
    "MUFAC without a family": (mufac(b",D,a,x.jpg\n"), [f"{MUFAC}:2: the identity is empty"]),
    "MUFAC family nan": (mufac(b"nan,D,a,x.jpg\n"), [f"{MUFAC}:2: family_id is 'nan'"]),
    "MUFAC family that ends in a person": (mufac(b"F1_D,2,a,x.jpg\n"), [f"{MUFAC}:2: family_id is 'F1_D'", "'_'"]),
    "MUFAC in capitals and not": (mufac(b"F1,D,a,x.jpg\nf1,D,a,y.jpg\n"), [f"{MUFAC}:3:", "'f1_D' looks like 'F1_D'"]),
    "MUFAC with an unknown age": (mufac(b"F1,D,A,x.jpg\n"), [f"{MUFAC}:2: age_class is 'A'"]),
    "MUFAC with semicolons": (("mufac", {**mufac(b"")[1], MUFAC: b"family_id;person_id\n"}, {}), ["separated by ';'"]),
}


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(("given_files", "parts"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS.keys())
def test_bad_annotations_are_one_clear_message(
    tmp_path: Path, given_files: tuple[str, Files, dict[str, Any]], parts: list[str]
) -> None:
    layout, files, options = given_files
    with pytest.raises(DataError) as raised:
        read_annotations(layout, write(tmp_path, files), options)
    message = str(raised.value)
    for part in parts:
        assert part in message
    assert "\n" not in message and len(message) < 500
    assert message.endswith((".", "?"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"similar_names": "together"}, "option similar_names = 'together', allowed: apart"),
        ({"file": "../m.csv"}, "inside the dataset's folder"),
        ({"file": "m.xlsx"}, "allowed is a .csv or .parquet file"),
        ({"classes": "x"}, "a list of different names"),
        ({"label_columns": ["label"], "classes": ["x"]}, "exclude each other"),
        ({"colums": 1}, "unknown options ['colums']"),
    ],
)
def test_bad_options_are_one_clear_message(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_annotations("manifest", write(tmp_path, {"manifest.csv": GOOD}), options)
    assert part in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(b"\n", b"\r\n"), GOOD.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"), b"\xfe\xff" + GOOD.decode().encode("utf-16-be"), GOOD.decode().encode("utf-32"),
        GOOD + b"\n \r\n", GOOD.replace(b"p,", b" p ,"), GOOD.replace(b"path", "\u200bpath".encode()),
        GOOD.replace(b"x\n", "x\u200b\n".encode()), GOOD.replace(b",", b', "').replace(b", \"", b",") + b"",
    ],
)  # fmt: skip
def test_what_is_unambiguous_is_read(tmp_path: Path, text: bytes) -> None:
    frame = read_annotations("manifest", write(tmp_path, {"manifest.csv": text}), {}).frame
    assert frame["path"].tolist() == ["a.png", "b.png"]
    assert frame["identity_name"].tolist() == ["p", "q"]
    assert frame["label"].tolist() == [0, 1]


def test_one_person_in_two_spellings_is_one_in_every_layout_and_it_is_said(tmp_path: Path) -> None:
    nfc, nfd = "Zo\xeb", "Zoe\u0308"
    found: list[Annotations] = []
    text = f"path,identity,label\na.png,{nfc},x\nb.png,{nfd}\u200b,x\n".encode()
    found.append(read_annotations("manifest", write(tmp_path, {"manifest.csv": text}), {}))
    _, files, _ = mufac(f"{nfc},D,a,x.jpg\n{nfd},D,a,y.jpg\n".encode())
    found.append(read_annotations("mufac", write(tmp_path, files), {}))
    file = io.BytesIO()
    pd.DataFrame({"path": ["a.png", "b.png"], "identity": [nfc, nfd], "label": ["x", "x"]}).to_parquet(file)
    options = {"file": "m.parquet"}
    found.append(read_annotations("manifest", write(tmp_path, {"m.parquet": file.getvalue()}), options))
    for annotations in found:
        assert annotations.frame["identity_name"].head(2).nunique() == 1
        assert "1 other spellings of 1 names were taken for the same people" in annotations.notes[0]


def test_labels_in_two_spellings_are_one_class_and_it_is_said(tmp_path: Path) -> None:
    text = "path,identity,label\na.png,p,caf\xe9\nb.png,q,cafe\u0301\n".encode()
    annotations = read_annotations("manifest", write(tmp_path, {"manifest.csv": text}), {})
    assert annotations.classes == ("caf\xe9",)
    assert "one class" in annotations.notes[0]


def test_names_that_look_alike_stay_apart_where_asked(tmp_path: Path) -> None:
    files = {"manifest.csv": HEAD + b"a.png,aB3,x\nb.png,ab3,x\n"}
    frame = read_annotations("manifest", write(tmp_path, files), {"similar_names": "apart"}).frame
    assert frame["identity_name"].tolist() == ["aB3", "ab3"]


# ---- images, as they are reported with their row


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(png())).save(file, "JPEG", quality=95)
    return file.getvalue()


BAD_IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "web page in place of the picture": (lambda: b"<!DOCTYPE html><html>404", "not a picture that can be read"),
    "pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "not a picture"),
    "zip": (lambda: b"PK\x03\x04" + bytes(60), "not a picture"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture"),
    "zeros": (lambda: bytes(5000), "not a picture"),
    "JPEG header only": (lambda: jpeg()[:20], "unreadable: "),
    "JPEG without its end": (lambda: jpeg()[:-2], "no end of image after the scan"),
    "half a JPEG": (lambda: jpeg()[:3000], "no end of image after the scan"),
    "JPEG filled up with zeros": (lambda: jpeg()[:3000].ljust(len(jpeg()), b"\0"), "no end of image after the scan"),
    "JPEG with a hole": (lambda: jpeg()[:2000] + bytes(1500) + jpeg()[3500:], "a hole of zeros"),
    "half a PNG": (lambda: png()[:4000], "the last part of the file is missing"),
    "PNG filled up with zeros": (lambda: png()[:4000].ljust(len(png()), b"\0"), "a check sum is wrong (IDAT"),
    "PNG with a flipped bit": (lambda: png()[:500] + bytes([png()[500] ^ 1]) + png()[501:], "a check sum is wrong"),
    "JPEG of a lying size": (
        lambda: jpeg().replace(b"\x08\x00\x40\x00\x40", b"\x08\x33\x33\x33\x33", 1)[:700].ljust(900),
        "its header says 13107 x 13107 px, more than the file can hold",
    ),
    "PNG of a lying size": (lambda: png()[:16] + b"\x7f\xff\xff\xff" + png()[20:], "unreadable: "),
    "GIF header only": (lambda: b"GIF89a\x40\x00\x40\x00\x80\x00\x00", "unreadable: "),
    "TIFF header only": (lambda: b"II*\x00\x08\x00\x00\x00", "unreadable: "),
    "BMP of a lying size": (
        lambda: b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + b"\xff\xff\xff\x7f" * 2 + bytes(28),
        "unr",
    ),
}


@pytest.mark.parametrize(("made", "part"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images_are_reported_and_never_another_error(tmp_path: Path, made: Callable[[], bytes], part: str) -> None:
    (tmp_path / "a.jpg").write_bytes(made())
    (error,) = probe_images(tmp_path, ["a.jpg"], n_threads=1, progress=False)["error"]
    assert error.startswith("unreadable: ") and part in error
    assert str(tmp_path) not in error and "<_io" not in error and len(error) < 300


def test_there_are_many_of_them() -> None:
    assert len(BAD_ANNOTATIONS) + len(BAD_IMAGES) + 6 >= 80


# ---- whatever arrives


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return what ``call`` returns, or None and why it was refused. Any other error is a failure of the test."""
    try:
        with quiet():
            return call(), ""
    except OneShuiError as error:
        return None, str(error)


_CELLS = st.one_of(
    st.sampled_from(
        ["a.png", "b.png", "p", "q", "x", "", "nan", "1", "1.0", "01", " p", "Zo\xeb", "Zoe\u0308", "\u200b"]
    ),
    st.text(max_size=6),
)
_QUICK = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@_QUICK
@given(table=st.lists(st.lists(_CELLS, min_size=2, max_size=4), max_size=5), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_table_is_read_rightly_or_refused(tmp_path: Path, table: list[list[str]], end: str) -> None:
    text = end.join(["path,identity,label", *(",".join(row) for row in table)])
    (tmp_path / "manifest.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    annotations, refusal = attempt(lambda: read_annotations("manifest", tmp_path, {}))
    if annotations is None:
        assert "manifest.csv" in refusal
        return
    frame = annotations.frame
    assert frame["path"].is_unique and frame["path"].str.len().min() > 0
    names = frame["identity_name"].unique()
    assert len({name.casefold().replace(" ", "") for name in names}) == len(names)
    assert len(annotations.classes) == frame["label"].nunique()


@pytest.mark.slow
@_QUICK
@given(layout=st.sampled_from(sorted(LAYOUTS)), data=st.binary(max_size=200), keep=st.integers(0, 200))
@example(layout="celeba", data=b"\xff\xfe\x00", keep=3)
def test_any_bytes_in_an_annotation_file_are_read_or_refused(
    tmp_path: Path, layout: str, data: bytes, keep: int
) -> None:
    whole = {"celeba": celeba(), "mufac": mufac(b"F1,D,a,x.jpg\n")}.get(layout, manifest(GOOD))[1]
    for name in LAYOUTS[layout].files({}):
        content = whole.get(name, GOOD)
        (tmp_path / name).write_bytes(content[:keep] + data + content[keep:])
    annotations, refusal = attempt(lambda: read_annotations(layout, tmp_path, {}))
    assert refusal if annotations is None else len(annotations.frame)


_WHOLE = [png(), jpeg()]


@pytest.mark.slow
@settings(max_examples=3000, deadline=None)
@given(which=st.integers(0, 1), at=st.floats(0, 1), data=st.binary(min_size=1, max_size=40), cut=st.floats(0.02, 1))
def test_any_damage_to_a_picture_is_decoded_or_refused(which: int, at: float, data: bytes, cut: float) -> None:
    whole = _WHOLE[which]
    start = int(at * len(whole))
    broken = (whole[:start] + data + whole[start + len(data) :])[: max(1, int(cut * len(whole)))]
    for draft in (None, (64, 64)):
        picture, refusal = attempt(lambda draft=draft: read_picture(broken, draft_px=draft))
        if picture is None:
            assert 0 < len(refusal) < 300
        else:
            assert picture.image.mode in ("RGB", "L") and picture.size[0] > 0


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"II*\0", b"P6 "]),
)
def test_any_bytes_are_a_picture_or_refused(data: bytes, start: bytes) -> None:
    picture, refusal = attempt(lambda: read_picture(start + data))
    assert picture or refusal
