"""Drawn faces: the same every time, alike within an identity, labelled as announced, written as users have them."""

import csv
import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oneshui.config import SyntheticSpec
from oneshui.data import cartoon, synthetic
from oneshui.data.raw_layouts import write_raw
from oneshui.data.synthetic import Face, class_names, render_faces
from oneshui.errors import ConfigError, DataError

RAW: dict[str, Any] = {
    "task": "classification",
    "n_identities": 6,
    "images_per_identity": [2, 4],
    "image_px": 16,
    "n_classes": 8,
    "memorised_frac": 0.0,
    "noise_frac": 0.0,
    "seed": 0,
}


def spec_of(**changes: Any) -> SyntheticSpec:
    return SyntheticSpec.from_dict({**RAW, **changes})


def pixels_of(faces: Iterable[Face]) -> dict[tuple[int, int], bytes]:
    return {(face.identity, face.image): face.pixels.tobytes() for face in faces}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels do not depend on pixels: tests of label statistics skip the drawing."""
    blank = Image.new("RGB", (16, 16))
    monkeypatch.setattr(synthetic, "draw", lambda person, shot, image_px: blank)


def visible(spec: SyntheticSpec, face: Face) -> tuple[cartoon.Person, cartoon.Shot]:
    person = synthetic.person_in(spec, face.identity)
    return person, cartoon.shot_of(
        person, face.identity, face.image, seed=spec.seed, n_stages=synthetic._n_stages(spec)
    )


# pictures


def test_same_spec_gives_same_faces_and_another_seed_gives_others() -> None:
    first, second = list(render_faces(spec_of())), list(render_faces(spec_of()))
    assert pixels_of(first) == pixels_of(second)
    assert [face.label for face in first] == [face.label for face in second]
    other = pixels_of(render_faces(spec_of(seed=1)))
    assert not set(pixels_of(first).values()) & set(other.values())


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_an_image_does_not_depend_on_how_many_others_are_drawn(task: str) -> None:
    few = spec_of(task=task, n_identities=3, memorised_frac=0.4, noise_frac=0.2)
    many = dataclasses.replace(few, n_identities=7)
    longer = dataclasses.replace(few, images_per_identity=(5, 5))
    drawn = [
        {(f.identity, f.image): (f.pixels.tobytes(), f.label) for f in render_faces(s)} for s in (few, many, longer)
    ]
    assert drawn[0].items() <= drawn[1].items()
    assert drawn[0].items() <= drawn[2].items()


def test_pictures_do_not_depend_on_the_label_shares() -> None:
    assert pixels_of(render_faces(spec_of())) == pixels_of(render_faces(spec_of(memorised_frac=0.5, noise_frac=0.5)))


def test_images_are_counted_from_zero_within_the_range() -> None:
    spec = spec_of(n_identities=20)
    images = defaultdict(list)
    for face in render_faces(spec):
        assert face.pixels.mode == "RGB" and face.pixels.size == (16, 16)
        images[face.identity].append(face.image)
    assert sorted(images) == list(range(20))
    assert all(numbers == list(range(len(numbers))) for numbers in images.values())
    assert {len(numbers) for numbers in images.values()} == {2, 3, 4}


def test_images_of_an_identity_are_alike_and_not_the_same() -> None:
    faces = list(render_faces(spec_of(n_identities=30, images_per_identity=[4, 4], image_px=24)))
    assert len(set(pixels_of(faces).values())) == len(faces)
    # the middle of the picture, where the wall does not show, with the light divided out
    middle = np.stack([np.asarray(face.pixels, dtype=float)[8:, 6:18] for face in faces])
    middle /= middle.mean(axis=(1, 2, 3), keepdims=True)
    flat = middle.reshape(len(faces), -1)
    distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(axis=2))
    identity = np.array([face.identity for face in faces])
    same = identity[:, None] == identity[None]
    apart = ~np.eye(len(faces), dtype=bool)
    assert distance[same & apart].mean() < 0.85 * distance[~same].mean()
    nearest = np.where(apart, distance, np.inf).argmin(axis=1)
    assert (identity[nearest] == identity).mean() > 0.4  # chance is 3 in 119


# labels


def test_class_names() -> None:
    assert class_names(spec_of()) == tuple("abcdefgh")
    names = class_names(spec_of(task="multilabel"))
    assert len(names) == len(set(names)) == 40
    assert (names[0], names[15], names[39]) == ("5_o_Clock_Shadow", "Eyeglasses", "Young")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 8, 26])
def test_class_is_a_function_of_the_visible_age(n_classes: int) -> None:
    spec = spec_of(n_identities=80, n_classes=n_classes)
    faces = list(render_faces(spec))
    assert all(face.label == int(visible(spec, face)[1].age * n_classes) for face in faces)
    assert {face.label for face in faces} == set(range(n_classes))


def test_the_age_is_seen_in_the_picture() -> None:
    spec = spec_of()
    person = synthetic.person_in(spec, 0)
    shot = cartoon.shot_of(person, 0, 0, seed=spec.seed, n_stages=synthetic._n_stages(spec))
    ages = [np.asarray(cartoon.draw(person, dataclasses.replace(shot, age=a / 8 + 0.06), 32), float) for a in range(8)]
    assert all(np.abs(first - second).mean() > 1.5 for first, second in pairwise(ages))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("n_classes", [2, 4, 8])
def test_memorised_class_is_constant_per_identity_and_never_the_visible_one(n_classes: int) -> None:
    spec = spec_of(n_identities=300, images_per_identity=[2, 2], memorised_frac=0.3, n_classes=n_classes)
    labels, wrong = defaultdict(set), defaultdict(set)
    for face in render_faces(spec):
        labels[face.identity].add(face.label)
        wrong[face.identity].add(face.label != visible(spec, face)[1].stage)
    memorised = [identity for identity, values in wrong.items() if values == {True}]
    assert all(len(values) == 1 for values in wrong.values())  # wrong on all images or on none
    assert all(len(labels[identity]) == 1 for identity in memorised)
    assert len(memorised) / 300 == pytest.approx(0.3, abs=0.08)  # 3 standard errors
    assert {label for identity in memorised for label in labels[identity]} == set(range(n_classes))


@pytest.mark.usefixtures("undrawn")
def test_noise_share_of_images_has_a_uniform_class() -> None:
    spec = spec_of(n_identities=200, noise_frac=0.4)
    faces = list(render_faces(spec))
    clean = list(render_faces(dataclasses.replace(spec, noise_frac=0.0)))
    changed = np.mean([a.label != b.label for a, b in zip(faces, clean, strict=True)])
    assert changed == pytest.approx(0.4 * 7 / 8, abs=0.06)  # one in eight draws hits the visible class


@pytest.mark.usefixtures("undrawn")
def test_attributes_are_constant_or_seen() -> None:
    spec = spec_of(task="multilabel", n_identities=120)
    names = class_names(spec)
    varying = set()
    bits: dict[int, list[Any]] = defaultdict(list)
    for face in render_faces(spec):
        person, shot = visible(spec, face)
        seen = dict(zip(names, face.label, strict=True))  # type: ignore[arg-type]
        assert seen["Eyeglasses"] == person.glasses and seen["Male"] == person.male
        assert seen["Smiling"] == (shot.smile > 0.2) and seen["Young"] == (shot.age < 0.5)
        assert not (seen["Bald"] and seen["Black_Hair"]) and not (seen["Young"] and seen["Gray_Hair"])
        bits[face.identity].append(face.label)
    for rows in bits.values():
        varying |= {name for name, column in zip(names, np.array(rows).T, strict=True) if len(set(column)) > 1}
    hidden = {name for name, (_, decide) in synthetic._ATTRIBUTES.items() if decide is None}
    assert hidden and not hidden & varying
    assert {"Smiling", "Mouth_Slightly_Open", "Narrow_Eyes", "Gray_Hair"} <= varying
    rates = np.concatenate([np.array(rows) for rows in bits.values()]).mean(axis=0)
    assert rates.min() > 0.02 and rates.max() < 0.98 and np.ptp(rates) > 0.4


@pytest.mark.usefixtures("undrawn")
def test_memorised_share_of_identity_attribute_pairs() -> None:
    spec = spec_of(task="multilabel", n_identities=150, images_per_identity=[8, 8], memorised_frac=0.25)
    places = [class_names(spec).index(name) for name in ("Smiling", "Mouth_Slightly_Open")]
    labels = defaultdict(set)
    for face in render_faces(spec):
        for place in places:
            labels[face.identity, place].add(face.label[place])  # type: ignore[index]
    # what is seen is the same on all 8 images with a probability of 0.01
    constant = [values for values in labels.values() if len(values) == 1]
    assert len(constant) / len(labels) == pytest.approx(0.25, abs=0.08)
    assert {value for values in constant for value in values} == {0, 1}


@pytest.mark.usefixtures("undrawn")
def test_noise_flips_single_bits() -> None:
    spec = spec_of(task="multilabel", n_identities=60, memorised_frac=0.3)
    clean = np.array([face.label for face in render_faces(spec)])
    noisy = np.array([face.label for face in render_faces(dataclasses.replace(spec, noise_frac=0.2))])
    assert set(np.unique(noisy)) == {0, 1}
    assert (clean != noisy).mean() == pytest.approx(0.2, abs=0.03)


# layouts


def lines_of(path: Path, end: str = "\n") -> list[str]:
    text = path.read_bytes().decode()
    assert text.endswith(end) and text.count("\n") == text.count(end)
    return text.split(end)[:-1]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_mufac_layout(tmp_path: Path) -> None:
    spec = spec_of(n_identities=30, memorised_frac=0.3)
    write_raw(spec, tmp_path / "raw", "mufac")
    families, names, people = {}, [], Counter[tuple[str, str]]()
    for part in ("train", "val", "test"):
        rows = rows_of(tmp_path / "raw" / f"custom_{part}_dataset.csv")
        assert list(rows[0]) == ["family_id", "person_id", "age_class", "image_path"]
        for row in rows:
            match = re.fullmatch(r"(F\d{4})_AGE_((?:D|M|S|F|GM|GF)\d?)_\d+_([a-h])\d+\.(jpg|JPG)", row["image_path"])
            assert match and match.groups()[:3] == (row["family_id"], row["person_id"], row["age_class"])
            people[row["family_id"], row["person_id"]] += 1
        families[part] = {row["family_id"] for row in rows}
        names += [row["image_path"] for row in rows]
        assert {path.name for path in (tmp_path / "raw" / f"{part}_images").iterdir()} == {
            r["image_path"] for r in rows
        }
    assert families["train"] and families["val"] and families["test"]
    assert not families["train"] & families["val"] | families["test"] & (families["train"] | families["val"])
    faces = list(render_faces(spec))
    counts = Counter(face.identity for face in faces)
    assert sorted(people.values()) == sorted(counts.values()) and len(set(names)) == len(faces)
    assert Counter(name.split("_")[4][0] for name in names) == Counter("abcdefgh"[face.label] for face in faces)  # type: ignore[index]
    assert {name.rsplit(".")[1] for name in names} == {"jpg", "JPG"}


def test_celeba_layout(tmp_path: Path) -> None:
    spec = spec_of(task="multilabel", image_px=32)
    write_raw(spec, tmp_path / "raw", "celeba")
    faces = list(render_faces(spec))
    pairs = [line.split(" ") for line in lines_of(tmp_path / "raw" / "identity_CelebA.txt", "\r\n")]
    assert [name for name, _ in pairs] == [f"{number:06d}.jpg" for number in range(1, len(faces) + 1)]
    identities = [int(identity) - 1 for _, identity in pairs]
    assert identities != sorted(identities)
    assert Counter(identities) == Counter(face.identity for face in faces)
    count, header, *rows = lines_of(tmp_path / "raw" / "list_attr_celeba.txt")
    assert int(count) == len(faces) and header.split() == list(class_names(spec))
    assert [row.split()[0] for row in rows] == [name for name, _ in pairs]
    labels = [tuple(max(0, int(sign)) for sign in row.split()[1:]) for row in rows]
    assert Counter(zip(identities, labels, strict=True)) == Counter((face.identity, face.label) for face in faces)
    for name, _ in pairs:
        with Image.open(tmp_path / "raw" / "img_align_celeba" / name) as image:
            assert image.format == "JPEG" and image.size == (32, 39)


def test_celebahq_layout(tmp_path: Path) -> None:
    spec = spec_of(task="multilabel")
    write_raw(spec, tmp_path / "raw", "celebahq")
    faces = list(render_faces(spec))
    pairs = [line.split(" ") for line in lines_of(tmp_path / "raw" / "CelebA-HQ-identity.txt")]
    assert [name for name, _ in pairs] == [f"{number}.jpg" for number in range(len(faces))]
    count, header, *rows = lines_of(tmp_path / "raw" / "CelebAMask-HQ-attribute-anno.txt")
    assert int(count) == len(faces) and header == " ".join(class_names(spec))
    assert all(re.fullmatch(r"\d+\.jpg  (-?1 ){39}-?1", row) for row in rows)
    labels = [tuple(max(0, int(sign)) for sign in row.split()[1:]) for row in rows]
    found = Counter((int(identity), label) for (_, identity), label in zip(pairs, labels, strict=True))
    assert found == Counter((face.identity, face.label) for face in faces)
    with Image.open(tmp_path / "raw" / "CelebA-HQ-img" / "0.jpg") as image:
        assert image.format == "JPEG" and image.size == (16, 16)


@pytest.mark.parametrize("layout", ["manifest", "synthetic"])
@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_manifest_layout(tmp_path: Path, task: str, layout: str) -> None:
    spec = spec_of(task=task, noise_frac=0.2)
    write_raw(spec, tmp_path / "raw", layout)
    names = class_names(spec)
    rows = rows_of(tmp_path / "raw" / "manifest.csv")
    label_columns = ["label"] if task == "classification" else list(names)
    assert list(rows[0]) == ["path", "identity", *label_columns]
    for row, face in zip(rows, render_faces(spec), strict=True):
        with Image.open(tmp_path / "raw" / row["path"]) as image:
            assert image.format == "PNG" and image.tobytes() == face.pixels.tobytes()
        assert row["identity"] == f"id{face.identity:05d}"
        if isinstance(face.label, int):
            assert row["label"] == names[face.label]
        else:
            assert [row[name] for name in names] == [str(bit) for bit in face.label]
    assert len(list((tmp_path / "raw" / "images").iterdir())) == len(rows)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        write_raw(spec_of(n_identities=3), tmp_path / name, "mufac")
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_an_empty_folder_is_used_and_one_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_raw(spec_of(), tmp_path / "raw", "manifest")
    with pytest.raises(DataError, match="not empty"):
        write_raw(spec_of(), tmp_path / "raw", "manifest")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        write_raw(spec_of(), tmp_path / "file", "manifest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "raw"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(person: object, shot: object, image_px: int) -> Image.Image:
        raise OSError("disk full")

    monkeypatch.setattr(synthetic, "draw", fail)
    with pytest.raises(OSError, match="disk full"):
        write_raw(spec_of(), tmp_path / "raw", "manifest")
    assert not list(tmp_path.iterdir())


# errors


@pytest.mark.parametrize(
    ("changes", "layout", "message"),
    [
        ({}, "cifar", "layout is 'cifar', allowed: .*manifest"),
        ({"task": "multilabel"}, "mufac", "holds classification labels"),
        ({}, "celeba", "holds multilabel labels"),
        ({}, "celebahq", "holds multilabel labels"),
        ({"n_classes": 5}, "mufac", "n_classes is 5"),
    ],
)
def test_layouts_that_cannot_hold_the_labels(
    tmp_path: Path, changes: dict[str, Any], layout: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_raw(spec_of(**changes), tmp_path / "raw", layout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "regression"),
        ("task", None),
        ("n_identities", 0),
        ("n_identities", 2.0),
        ("n_identities", True),
        ("images_per_identity", 3),
        ("images_per_identity", [3]),
        ("images_per_identity", [0, 2]),
        ("images_per_identity", [3, 2]),
        ("images_per_identity", ["1", "2"]),
        ("image_px", 15),
        ("n_classes", 1),
        ("n_classes", 27),
        ("memorised_frac", 1.0),
        ("memorised_frac", -0.1),
        ("memorised_frac", float("nan")),
        ("noise_frac", "0.1"),
        ("noise_frac", False),
        ("seed", 0.5),
    ],
)
def test_impossible_values_name_key_value_and_what_is_allowed(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"synthetic: {key} = .*, allowed: "):
        spec_of(**{key: value})


def test_unknown_and_missing_keys_are_named() -> None:
    raw = {key: value for key, value in RAW.items() if key != "seed"}
    with pytest.raises(
        ConfigError,
        match=r"2 problems\n  unknown key sed; allowed: task, .*\n  missing key seed; it has: task, ",
    ):
        SyntheticSpec.from_dict({**raw, "sed": 0})


def test_number_of_classes_does_not_matter_to_attributes() -> None:
    first = spec_of(task="multilabel", n_identities=2)
    second = spec_of(task="multilabel", n_identities=2, n_classes=0)
    assert pixels_of(render_faces(first)) == pixels_of(render_faces(second))
