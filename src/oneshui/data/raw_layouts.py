"""Synthetic faces written to disk in the raw layouts of the published datasets: every reader is tested end to end."""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from oneshui.config import SyntheticSpec, layout_problem
from oneshui.data.synthetic import Face, class_names, n_images, person_in, render_faces
from oneshui.errors import ConfigError, DataError
from oneshui.files import write_text
from oneshui.folders import own_folder
from oneshui.seeds import stream


def write_raw(spec: SyntheticSpec, folder: Path, layout: str) -> None:
    """Write images and annotation files exactly as a user has them on disk.

    Everything is written beside ``folder`` first, so that ``folder`` is complete or absent.

    Args:
        spec: what to draw.
        folder: where to; must be absent or empty.
        layout: a key of ``oneshui.data.layouts.LAYOUTS``.

    Raises:
        ConfigError: the layout is unknown, or cannot hold labels of this task or number of classes.
        DataError: ``folder`` is a file or a folder that holds something.
    """
    if layout not in _WRITERS:
        raise ConfigError(f"layout is {layout!r}, allowed: {', '.join(_WRITERS)}. Correct it in the configuration.")
    problem = layout_problem(spec, layout)
    if problem:
        raise ConfigError(problem)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is a file or a folder that is not empty. Delete it, or name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(folder.parent, folder.name) as parent:
        fresh = parent / "raw"
        fresh.mkdir()
        _WRITERS[layout](spec, fresh)
        if folder.exists():
            folder.rmdir()
        os.replace(fresh, folder)


def _save_jpeg(image: Image.Image, path: Path) -> None:
    image.save(path, format="JPEG", quality=95)


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _signs(label: int | tuple[int, ...]) -> list[str]:
    assert isinstance(label, tuple)
    return ["1" if bit else "-1" for bit in label]


def _shuffled(spec: SyntheticSpec) -> Iterator[tuple[int, Face]]:
    """Yield faces with their place in a fixed random order, in which identities are mixed as in CelebA."""
    total = sum(n_images(spec, identity) for identity in range(spec.n_identities))
    places = stream("synthetic", spec.seed, "order").permutation(total).tolist()
    return zip(places, render_faces(spec), strict=True)


def _write_celeba(spec: SyntheticSpec, folder: Path) -> None:
    images = folder / "img_align_celeba"
    images.mkdir()
    identities, attributes = {}, {}
    for place, face in _shuffled(spec):
        name = f"{place + 1:06d}.jpg"
        _save_jpeg(_portrait(face.pixels), images / name)
        identities[name] = f"{name} {face.identity + 1}\r\n"
        attributes[name] = f"{name} {' '.join(sign.rjust(2) for sign in _signs(face.label))}\n"
    names = sorted(identities)
    (folder / "identity_CelebA.txt").write_bytes("".join(identities[name] for name in names).encode())
    head = f"{len(names)}\n{' '.join(class_names(spec))} \n"
    write_text(folder / "list_attr_celeba.txt", head + "".join(attributes[name] for name in names))


def _portrait(image: Image.Image) -> Image.Image:
    """Return the picture in the 178:218 shape of CelebA: its first and last rows are repeated."""
    missing = round(image.width * 218 / 178) - image.height
    pixels = np.pad(np.asarray(image), ((missing // 2, missing - missing // 2), (0, 0), (0, 0)), mode="edge")
    return Image.fromarray(pixels)


def _write_celebahq(spec: SyntheticSpec, folder: Path) -> None:
    images = folder / "CelebA-HQ-img"
    images.mkdir()
    identities, attributes = {}, {}
    for place, face in _shuffled(spec):
        _save_jpeg(face.pixels, images / f"{place}.jpg")
        identities[place] = f"{place}.jpg {face.identity}\n"
        attributes[place] = f"{place}.jpg  {' '.join(_signs(face.label))}\n"
    places = range(len(identities))
    write_text(folder / "CelebA-HQ-identity.txt", "".join(identities[place] for place in places))
    head = f"{len(identities)}\n{' '.join(class_names(spec))}\n"
    lines = "".join(attributes[place] for place in places)
    write_text(folder / "CelebAMask-HQ-attribute-anno.txt", head + lines)


def _write_mufac(spec: SyntheticSpec, folder: Path) -> None:
    # one family in eight for validation and one for test; the first three families fill all three parts
    parts = ("train", "val", "test", "train", "train", "train", "train", "train")
    for part in set(parts):
        (folder / f"{part}_images").mkdir()
    people = _mufac_people(spec)
    rows: dict[str, list[list[str]]] = {
        part: [["family_id", "person_id", "age_class", "image_path"]] for part in ("train", "val", "test")
    }
    taken: Counter[str] = Counter()
    for count, face in enumerate(render_faces(spec)):
        assert isinstance(face.label, int)
        family, person, age = people[face.identity]
        letter = class_names(spec)[face.label]
        stem = f"F{family + 1:04d}_AGE_{person}_{age}_{letter}"
        taken[stem] += 1
        name = f"{stem}{taken[stem]}.{'JPG' if count % 10 == 9 else 'jpg'}"  # both occur in the real data
        part = parts[family % len(parts)]
        _save_jpeg(face.pixels, folder / f"{part}_images" / name)
        rows[part].append([f"F{family + 1:04d}", person, letter, name])
    for part, lines in rows.items():
        _write_csv(folder / f"custom_{part}_dataset.csv", [lines[0], *sorted(lines[1:])])


def _mufac_people(spec: SyntheticSpec) -> list[tuple[int, str, int]]:
    """Return family (2 to 4 members), role in it (``D``, ``S2``, ...) and age in years of each identity."""
    sizes = stream("synthetic", spec.seed, "families").integers(2, 5, size=spec.n_identities)
    families = np.repeat(np.arange(spec.n_identities), sizes)[: spec.n_identities].tolist()
    seen: Counter[tuple[int, str]] = Counter()
    people = []
    for identity, family in enumerate(families):
        person = person_in(spec, identity)
        roles = ("S", "F", "GF") if person.male else ("D", "M", "GM")
        role = roles[min(2, person.middle_stage // 3)]
        seen[family, role] += 1
        number = seen[family, role]
        people.append((family, role if number == 1 else f"{role}{number}", 8 + 10 * person.middle_stage))
    return people


def _write_manifest(spec: SyntheticSpec, folder: Path) -> None:
    (folder / "images").mkdir()
    names = class_names(spec)
    rows = [["path", "identity", *(names if spec.task == "multilabel" else ("label",))]]
    for face in render_faces(spec):
        path = f"images/{face.identity:05d}_{face.image:03d}.png"
        face.pixels.save(folder / path)
        label = [names[face.label]] if isinstance(face.label, int) else [str(bit) for bit in face.label]
        rows.append([path, f"id{face.identity:05d}", *label])
    _write_csv(folder / "manifest.csv", rows)


#: what writes a layout
_WRITERS: Final[Mapping[str, Callable[[SyntheticSpec, Path], None]]] = {
    "mufac": _write_mufac,
    "celeba": _write_celeba,
    "celebahq": _write_celebahq,
    "manifest": _write_manifest,
    "synthetic": _write_manifest,
}
