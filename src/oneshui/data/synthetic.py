"""Cartoon faces drawn by our own code: data for the demo and for testing the readers, with nobody in it.

An identity fixes geometry and colours; pose, light, background, expression and the age shown vary by image. What a
label holds is known exactly: a part that can be seen (the age; attributes such as ``Smiling``), a part that is
constant per identity and can only be memorised, and noise. A model trained on some identities is therefore right on
their images for reasons that do not carry over to other identities, so that forgetting them can be measured.

Every number comes from a stream named after the identity or the image: an image does not depend on how many others
are drawn, on the size in pixels, or on the share of memorised and noisy labels.
"""

import csv
import io
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from oneshui.errors import ConfigError, DataError
from oneshui.files import write_text
from oneshui.seeds import stream

_Colour = tuple[int, int, int]
_Array = npt.NDArray[np.float64]

_TASKS: Final = ("classification", "multilabel")
_MAX_CLASSES: Final = 26  # classes are named by one letter, as in MUFAC
_MUFAC_CLASSES: Final = 8
_MULTILABEL_STAGES: Final = 8  # ages shown where no class count asks for another number
_SUPERSAMPLING: Final = 4

_SKIN: Final[tuple[_Colour, ...]] = ((255, 228, 206), (241, 194, 152), (214, 160, 112), (158, 105, 66), (104, 66, 43))
_HAIR: Final[Mapping[str, _Colour]] = {
    "black": (32, 28, 32),
    "brown": (104, 64, 36),
    "blond": (220, 172, 70),
    "red": (172, 74, 34),
}
_STYLES: Final = ("short", "bangs", "straight", "wavy", "bald")
_MALE_STYLES: Final = (0.55, 0.1, 0.05, 0.15, 0.15)  # shares
_FEMALE_STYLES: Final = (0.1, 0.25, 0.35, 0.3, 0.0)
_GREY: Final[_Colour] = (236, 236, 242)
_IRIS: Final[tuple[_Colour, ...]] = ((70, 44, 26), (52, 96, 156), (70, 122, 70), (110, 100, 90))
_DARK: Final[_Colour] = (36, 26, 28)
_ANGLES: Final = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)
_CIRCLE: Final[_Array] = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_STEPS: Final = np.linspace(-1.0, 1.0, 9)
_ARC: Final[_Array] = np.stack([_STEPS, 1.0 - _STEPS**2], axis=1)


@dataclass(frozen=True)
class SyntheticSpec:
    """What to draw and how to label it.

    Args:
        task: ``classification`` (one class: the age shown) or ``multilabel`` (the 40 attributes of CelebA).
        n_identities: number of identities, >= 1.
        images_per_identity: smallest and largest number of images of an identity; drawn uniformly, both included.
        image_px: width and height, >= 16.
        n_classes: number of age classes, 2 to 26; the MUFAC layout needs 8. Ignored for ``multilabel``.
        memorised_frac: share, in [0, 1), of identities (classification) or of identity-attribute pairs (multilabel)
            whose label is constant and drawn at random, whatever the images show.
        noise_frac: share, in [0, 1), of images whose class is uniformly random, or of bits that are flipped.
        seed: any integer.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    task: str
    n_identities: int
    images_per_identity: tuple[int, int]
    image_px: int
    n_classes: int
    memorised_frac: float
    noise_frac: float
    seed: int

    def __post_init__(self) -> None:
        _require(self.task in _TASKS, "task", self.task, " or ".join(_TASKS))
        _require(_is_int(self.n_identities, 1), "n_identities", self.n_identities, "an integer >= 1")
        per = self.images_per_identity
        good = isinstance(per, tuple) and len(per) == 2 and all(_is_int(n, 1) for n in per) and per[0] <= per[1]
        _require(good, "images_per_identity", per, "two integers, 1 <= smallest <= largest")
        _require(_is_int(self.image_px, 16), "image_px", self.image_px, "an integer >= 16")
        if self.task == "classification":
            in_range = _is_int(self.n_classes, 2) and self.n_classes <= _MAX_CLASSES
            _require(in_range, "n_classes", self.n_classes, f"an integer from 2 to {_MAX_CLASSES}")
        for key in ("memorised_frac", "noise_frac"):
            value = getattr(self, key)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            _require(number and 0.0 <= value < 1.0, key, value, "a number in [0, 1)")
        _require(_is_int(self.seed), "seed", self.seed, "an integer")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "SyntheticSpec":
        """Return the specification written in a configuration, where lists stand for tuples.

        Raises:
            ConfigError: a key is unknown or missing, or a value is of the wrong type or out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in raw if key not in known)
        missing = [key for key in known if key not in raw]
        if unknown or missing:
            raise ConfigError(
                f"synthetic: unknown keys {unknown}, missing keys {missing}. "
                f"Give exactly these keys: {', '.join(known)}."
            )
        per = raw["images_per_identity"]
        return cls(**{**raw, "images_per_identity": tuple(per) if isinstance(per, list) else per})


def _is_int(value: Any, low: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _require(good: bool, key: str, value: Any, allowed: str) -> None:
    if not good:
        raise ConfigError(f"synthetic.{key} is {value!r}, allowed: {allowed}. Correct it in the configuration.")


@dataclass(frozen=True)
class Face:
    """One image with its label: a class number, or one 0/1 per attribute."""

    identity: int
    image: int  # running number within the identity
    pixels: Image.Image  # RGB, image_px x image_px
    label: int | tuple[int, ...]


@dataclass(frozen=True)
class _Person:
    """What an identity fixes. Lengths are in units of half the height of the face."""

    male: bool
    middle_stage: int  # images show this age stage or a neighbouring one
    skin_tone: int
    skin: _Colour
    hair_name: str
    hair: _Colour
    style: str  # short, bangs, straight, wavy, bald
    face_width: float
    jaw: float  # 0 round, 1 pointed
    eye_gap: float
    eye_size: float
    iris: _Colour
    nose_width: float
    pointy_nose: bool
    mouth_width: float
    lips: float
    brow: float
    arch: float
    beard: str  # none, stubble, mustache, goatee, full
    glasses: bool
    hat: bool
    blush: bool
    makeup: bool
    lipstick: bool
    earrings: bool
    necklace: bool
    tie: bool
    frame: _Colour
    hat_colour: _Colour
    shirt: _Colour


@dataclass(frozen=True)
class _Shot:
    """What varies by image."""

    age: float  # in (0, 1)
    stage: int
    shift: tuple[float, float]
    scale: float
    angle: float
    smile: float  # -1 sad to 1 smiling
    mouth_open: float
    eye_open: float
    brow_raise: float
    gaze: float
    brightness: float
    light_angle: float
    light_slope: float
    cast: tuple[float, float, float]
    wall: _Colour
    decor: _Colour
    decor_at: tuple[float, float, float]

    @property
    def child(self) -> float:
        return max(0.0, 1.0 - 2.0 * self.age)

    @property
    def old(self) -> float:
        return max(0.0, (self.age - 0.45) / 0.55)

    @property
    def grey(self) -> float:
        return min(1.0, max(0.0, (self.age - 0.45) / 0.45))


def _mix(first: _Colour, second: _Colour, share: float) -> _Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _shade(colour: _Colour, factor: float) -> _Colour:
    red, green, blue = (min(255, max(0, round(part * factor))) for part in colour)
    return red, green, blue


def _random_colour(rng: np.random.Generator, low: int, high: int) -> _Colour:
    red, green, blue = (int(part) for part in rng.integers(low, high, size=3))
    return red, green, blue


def _n_stages(spec: SyntheticSpec) -> int:
    return spec.n_classes if spec.task == "classification" else _MULTILABEL_STAGES


def _window(middle: int, n_stages: int) -> range:
    """Age stages that the images of one identity show: as in MUFAC, more than one if there are enough."""
    reach = (n_stages - 1) // 3  # leaves other classes for the memorised label
    return range(max(0, middle - reach), min(n_stages, middle + reach + 1))


def _person(spec: SyntheticSpec, identity: int) -> _Person:
    rng = stream("synthetic", spec.seed, "identity", identity)

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    male = chance(0.5)
    tone = int(rng.integers(len(_SKIN)))
    hair_name = str(rng.choice(list(_HAIR), p=[0.35, 0.3, 0.2, 0.15]))
    return _Person(
        male=male,
        middle_stage=int(rng.integers(_n_stages(spec))),
        skin_tone=tone,
        skin=_shade(_SKIN[tone], rng.uniform(0.93, 1.03)),
        hair_name=hair_name,
        hair=_shade(_HAIR[hair_name], rng.uniform(0.85, 1.15)),
        style=str(rng.choice(_STYLES, p=_MALE_STYLES if male else _FEMALE_STYLES)),
        face_width=rng.uniform(0.7, 0.95),
        jaw=rng.uniform(0.0, 1.0),
        eye_gap=rng.uniform(0.29, 0.4),
        eye_size=rng.uniform(0.11, 0.17),
        iris=_IRIS[int(rng.integers(len(_IRIS)))],
        nose_width=rng.uniform(0.07, 0.2),
        pointy_nose=chance(0.4),
        mouth_width=rng.uniform(0.22, 0.4),
        lips=rng.uniform(0.03, 0.1),
        brow=rng.uniform(0.04, 0.13),
        arch=rng.uniform(0.0, 0.14),
        beard=str(rng.choice(["none", "stubble", "mustache", "goatee", "full"])) if male else "none",
        glasses=chance(0.25),
        hat=chance(0.15),
        blush=chance(0.25),
        makeup=not male and chance(0.5),
        lipstick=not male and chance(0.6),
        earrings=chance(0.05 if male else 0.5),
        necklace=chance(0.05 if male else 0.45),
        tie=male and chance(0.35),
        frame=_random_colour(rng, 0, 140),
        hat_colour=_random_colour(rng, 20, 240),
        shirt=_random_colour(rng, 60, 220),
    )


def _shot(spec: SyntheticSpec, person: _Person, identity: int, image: int) -> _Shot:
    rng = stream("synthetic", spec.seed, "image", identity, image)
    window = _window(person.middle_stage, _n_stages(spec))
    stage = int(rng.integers(window.start, window.stop))
    wall = _random_colour(rng, 90, 210)
    cast = rng.uniform(0.94, 1.06, size=3)
    return _Shot(
        # a gap is left between neighbouring stages, so that the class can be told from the picture
        age=(stage + rng.uniform(0.35, 0.65)) / _n_stages(spec),
        stage=stage,
        shift=(rng.uniform(-0.06, 0.06), rng.uniform(-0.03, 0.03)),
        scale=rng.uniform(0.96, 1.04),
        angle=rng.normal(0.0, 0.1),
        smile=rng.uniform(-0.6, 1.0),
        mouth_open=max(0.0, rng.uniform(-1.0, 1.0)),
        eye_open=rng.uniform(0.55, 1.0),
        brow_raise=rng.uniform(-0.03, 0.07),
        gaze=rng.uniform(-0.35, 0.35),
        brightness=rng.uniform(0.8, 1.1),
        light_angle=rng.uniform(0.0, 2.0 * np.pi),
        light_slope=rng.uniform(0.0, 0.25),
        cast=(float(cast[0]), float(cast[1]), float(cast[2])),
        wall=wall,
        decor=_mix(wall, _random_colour(rng, 90, 210), 0.4),
        decor_at=(rng.uniform(-1.6, 1.6), rng.uniform(-1.6, 1.6), rng.uniform(0.4, 1.2)),
    )


def _beard(person: _Person, shot: _Shot) -> str:
    return person.beard if shot.age > 0.3 else "none"


def _style(person: _Person, shot: _Shot) -> str:
    return "short" if person.style == "bald" and shot.age < 0.4 else person.style


class _Pen:
    """Draws in face coordinates: origin between nose and eyes, x to the right, y down, chin at y = 1."""

    def __init__(self, image: Image.Image, shot: _Shot) -> None:
        size = image.width
        unit = 0.34 * size * shot.scale * (1.0 - 0.42 * shot.child)
        cos, sin = math.cos(shot.angle) * unit, math.sin(shot.angle) * unit
        self._draw = ImageDraw.Draw(image)
        self._matrix = np.array([[cos, sin], [-sin, cos]])
        self._origin = np.array([0.5 + shot.shift[0], 0.5 + shot.shift[1] + 0.15 * shot.child]) * size
        self._unit = unit

    def _place(self, points: npt.ArrayLike) -> list[float]:
        placed: list[float] = (np.asarray(points) @ self._matrix + self._origin).ravel().tolist()
        return placed

    def shape(self, points: npt.ArrayLike, fill: _Colour) -> None:
        self._draw.polygon(self._place(points), fill=fill)

    def oval(self, at: tuple[float, float], radii: tuple[float, float], fill: _Colour) -> None:
        self.shape(_CIRCLE * radii + at, fill)

    def line(self, points: npt.ArrayLike, width: float, fill: _Colour) -> None:
        self._draw.line(self._place(points), fill=fill, width=max(1, round(width * self._unit)), joint="curve")

    def ring(self, at: tuple[float, float], radii: tuple[float, float], width: float, fill: _Colour) -> None:
        self.line(np.concatenate([_CIRCLE, _CIRCLE[:2]]) * radii + at, width, fill)


def _arc(left: float, right: float, y: float, bend: float) -> _Array:
    """Points from ``left`` to ``right`` at height ``y``, whose middle is lower by ``bend``."""
    return _ARC * ((right - left) / 2, bend) + ((left + right) / 2, y)


def _outline(person: _Person, shot: _Shot, grow: float) -> _Array:
    """Outline of the head; children have a rounder one."""
    x, y = _CIRCLE.T
    taper = 1.0 - 0.45 * person.jaw * (1.0 - shot.child) * np.maximum(0.0, y) ** 2
    return np.stack([x * taper * _half_width(person, shot), y * (1.0 - 0.1 * shot.child)], axis=1) * grow


def _half_width(person: _Person, shot: _Shot) -> float:
    return person.face_width * (1.0 + 0.12 * shot.child)


def _draw_behind(pen: _Pen, person: _Person, shot: _Shot, hair: _Colour) -> None:
    """Wall, long hair, neck, shoulders, ears and what is worn there."""
    width = _half_width(person, shot)
    x, y, radius = shot.decor_at
    pen.oval((x, y), (radius, radius), shot.decor)
    if _style(person, shot) == "straight":
        pen.oval((0.0, -0.1), (width + 0.22, 1.02), hair)
        pen.shape([(-width - 0.2, -0.2), (width + 0.2, -0.2), (width + 0.28, 1.3), (-width - 0.28, 1.3)], hair)
    if _style(person, shot) == "wavy":
        for row in range(5):
            for side in (-1, 1):
                pen.oval((side * (width + 0.06 + 0.1 * (row % 2)), -0.5 + 0.36 * row), (0.3, 0.26), hair)
    neck = _shade(person.skin, 0.82)
    pen.shape([(-0.36, 0.5), (0.36, 0.5), (0.4, 1.5), (-0.4, 1.5)], neck)
    rise = 0.35 * shot.old  # the old stoop
    # the young wear light clothes, the old dark ones
    shirt = _mix(_mix(person.shirt, (255, 255, 255), 0.75 * shot.child), (20, 20, 30), 0.85 * shot.old)
    pen.oval((0.0, 2.2 - rise), (1.55 - 0.4 * shot.child + rise, 1.0), shirt)
    pen.oval((0.0, 1.28 - rise), (0.36, 0.16), neck)
    if person.tie:
        pen.shape([(-0.12, 1.4), (0.12, 1.4), (0.22, 2.4), (-0.22, 2.4)], _shade(person.frame, 1.4))
    if person.necklace:
        pen.line(_arc(-0.45, 0.45, 1.2, 0.32), 0.08, (250, 220, 90))
    for side in (-1, 1):
        pen.oval((side * (width + 0.03), 0.05), (0.13, 0.2), _shade(person.skin, 0.88))
        if person.earrings:
            pen.oval((side * (width + 0.08), 0.34), (0.09, 0.11), (250, 214, 70))


def _draw_hair(pen: _Pen, person: _Person, shot: _Shot, hair: _Colour) -> None:
    """The hair in front, whose line rises with age, and the hat."""
    style = _style(person, shot)
    width = _half_width(person, shot)
    crown = _outline(person, shot, 1.1)[14:]  # upper half, from the left ear over the top to the right
    line = -0.5 + 0.12 * shot.child - 0.28 * shot.old
    if style == "bald":
        for side in (-1, 1):
            pen.oval((side * width * 0.97, -0.12), (0.1, 0.22), hair)
    elif style == "bangs":
        pen.shape(np.concatenate([crown, _arc(width * 1.05, -width * 1.05, -0.34, 0.06)]), hair)
    elif style == "straight":  # a middle parting
        tips = [(width * 1.08, 0.0), (width * 0.7, -0.4), (0.0, line - 0.3), (-width * 0.7, -0.4), (-width * 1.08, 0.0)]
        pen.shape(np.concatenate([crown, tips]), hair)
    else:
        tips = [(width * 1.06, -0.1), (width * 0.8, line), (-0.2, line - 0.08), (-width * 0.84, line + 0.1)]
        pen.shape(np.concatenate([crown, tips, [(-width * 1.06, -0.1)]]), hair)
    if style == "wavy":
        for x in (-0.75, -0.3, 0.2, 0.7):
            pen.oval((x * width, -0.86 + 0.3 * abs(x)), (0.3, 0.24), hair)
    if person.hat:
        pen.oval((0.0, -0.78), (width * 1.08, 0.52), person.hat_colour)
        pen.shape(
            [(-width * 1.4, -0.7), (width * 1.4, -0.7), (width * 1.4, -0.53), (-width * 1.4, -0.53)],
            _shade(person.hat_colour, 0.7),
        )


def _draw_age(pen: _Pen, person: _Person, shot: _Shot, eye_y: float) -> None:
    """Wrinkles, one kind after the other as age goes up, and rosy cheeks."""
    crease = _shade(person.skin, 0.55)
    width = _half_width(person, shot)
    if person.blush:
        for side in (-1, 1):
            pen.oval((side * width * 0.62, 0.36), (0.17, 0.12), _mix(person.skin, (235, 90, 100), 0.45))
    thick = 0.035 + 0.035 * shot.old
    if not person.hat:
        for row in range(round(3.4 * shot.old)):
            pen.line(_arc(-0.34, 0.34, -0.42 - 0.11 * row, -0.04), thick, crease)
    for side in (-1, 1):
        if shot.age > 0.5:  # lines from nose to mouth
            pen.line([(side * 0.2, 0.28), (side * 0.36, 0.42), (side * 0.4, 0.6)], thick, crease)
        if shot.age > 0.62:  # bags under the eyes
            pen.line(
                _arc(side * person.eye_gap - 0.14, side * person.eye_gap + 0.14, eye_y + 0.17, 0.06), thick, crease
            )
        if shot.age > 0.74:  # crow's feet, hollow cheeks
            for slope in (-0.1, 0.02, 0.14):
                pen.line([(side * width * 0.78, eye_y), (side * width * 0.95, eye_y + slope)], thick, crease)
        if shot.age > 0.87:
            pen.line([(side * width * 0.7, 0.25), (side * width * 0.52, 0.6)], thick, crease)


def _draw_eyes(pen: _Pen, person: _Person, shot: _Shot, eye_y: float, brow_colour: _Colour) -> None:
    size = person.eye_size * (1.0 + 0.6 * shot.child - 0.15 * shot.old)
    tall = size * shot.eye_open
    for side in (-1, 1):
        x = side * person.eye_gap
        if person.makeup:
            pen.oval((x, eye_y - 0.06), (size * 1.5, tall + 0.07), _mix(person.skin, (120, 60, 160), 0.6))
        pen.oval((x, eye_y), (size * 1.25, tall), (250, 250, 250))
        iris = size * 0.72
        look = (x + shot.gaze * size, eye_y)
        pen.oval(look, (iris, min(iris, tall)), person.iris)
        pen.oval(look, (iris * 0.5, min(iris * 0.5, tall)), (12, 10, 12))
        pen.oval((look[0] - iris * 0.35, eye_y - tall * 0.35), (iris * 0.25, tall * 0.2), (255, 255, 255))
        pen.line(_arc(x - size * 1.3, x + size * 1.3, eye_y - tall * 0.2, -tall * 0.85), 0.045, _DARK)
        brow_y = eye_y - size - 0.12 - shot.brow_raise
        thick = person.brow * (1.0 - 0.4 * shot.child)
        pen.line(_arc(x - 0.19, x + 0.19, brow_y, -person.arch), thick, brow_colour)


def _draw_nose(pen: _Pen, person: _Person, shot: _Shot, eye_y: float) -> None:
    wide = person.nose_width * (1.0 - 0.3 * shot.child)
    shadow = _shade(person.skin, 0.76)
    if person.pointy_nose:
        pen.shape([(0.02, eye_y + 0.06), (wide, 0.3), (-wide * 0.9, 0.3)], shadow)
    else:
        pen.line([(0.0, eye_y + 0.1), (0.0, 0.2)], 0.05, shadow)
        pen.oval((0.0, 0.25), (wide, 0.09), shadow)


def _draw_beard(pen: _Pen, person: _Person, shot: _Shot, hair: _Colour) -> None:
    beard = _beard(person, shot)
    if beard in ("stubble", "full"):
        lower = _outline(person, shot, 1.0)[1:14]
        inner = [(-0.5, 0.3), (-0.3, 0.38), (0.3, 0.38), (0.5, 0.3)]
        pen.shape(np.concatenate([lower, inner]), hair if beard == "full" else _mix(person.skin, _DARK, 0.28))
    if beard in ("mustache", "full"):
        pen.shape([(0.0, 0.36), (0.3, 0.42), (0.36, 0.54), (0.0, 0.48), (-0.36, 0.54), (-0.3, 0.42)], hair)
    if beard == "goatee":
        pen.oval((0.0, 0.82), (0.2, 0.19), hair)


def _draw_mouth(pen: _Pen, person: _Person, shot: _Shot) -> None:
    half = person.mouth_width * (1.0 + 0.15 * shot.smile)
    bend = 0.17 * shot.smile
    y = 0.58 - bend / 2
    red = (196, 28, 60) if person.lipstick else _mix(person.skin, (150, 50, 50), 0.55)
    top = _arc(-half, half, y - person.lips * 0.6, bend * 0.8)
    bottom = _arc(half, -half, y + person.lips * 0.6, bend + 0.3 * shot.mouth_open * half + person.lips * 0.6)
    pen.shape(np.concatenate([top, bottom]), red)
    if shot.mouth_open > 0.1:
        inside_top = _arc(-half * 0.85, half * 0.85, y, bend * 0.8)
        inside = _arc(half * 0.85, -half * 0.85, y, bend + 0.6 * shot.mouth_open * half)
        pen.shape(np.concatenate([inside_top, inside]), (92, 20, 30))
        teeth = _arc(half * 0.7, -half * 0.7, y + 0.01, bend * 0.8 + 0.07 * shot.mouth_open + 0.02)
        pen.shape(np.concatenate([_arc(-half * 0.7, half * 0.7, y + 0.01, bend * 0.8), teeth]), (250, 248, 240))
    else:
        pen.line(_arc(-half, half, y, bend), 0.045, _shade(red, 0.55))


def _draw_glasses(pen: _Pen, person: _Person, shot: _Shot, eye_y: float) -> None:
    for side in (-1, 1):
        x = side * person.eye_gap
        pen.ring((x, eye_y), (0.25, 0.22), 0.06, person.frame)
        pen.line([(x + side * 0.25, eye_y), (side * _half_width(person, shot), eye_y - 0.06)], 0.06, person.frame)
    pen.line([(-person.eye_gap + 0.25, eye_y), (person.eye_gap - 0.25, eye_y)], 0.06, person.frame)


def _draw(person: _Person, shot: _Shot, image_px: int) -> Image.Image:
    """Return the picture, drawn large and reduced so that edges are smooth."""
    large = image_px * _SUPERSAMPLING
    image = Image.new("RGB", (large, large), shot.wall)
    pen = _Pen(image, shot)
    hair = _mix(person.hair, _GREY, shot.grey)
    eye_y = -0.1 + 0.26 * shot.child
    _draw_behind(pen, person, shot, hair)
    pen.shape(_outline(person, shot, 1.0), person.skin)
    _draw_hair(pen, person, shot, hair)
    _draw_beard(pen, person, shot, hair)
    _draw_age(pen, person, shot, eye_y)
    _draw_eyes(pen, person, shot, eye_y, _shade(_mix(person.hair, _GREY, shot.grey * 0.7), 0.8))
    _draw_nose(pen, person, shot, eye_y)
    _draw_mouth(pen, person, shot)
    if person.glasses:
        _draw_glasses(pen, person, shot, eye_y)
    return _lit(image.resize((image_px, image_px), Image.Resampling.LANCZOS, reducing_gap=2.0), shot)


def _lit(image: Image.Image, shot: _Shot) -> Image.Image:
    """Return the picture under the light of the shot: brightness, a linear fall-off and a colour cast."""
    pixels = np.asarray(image, dtype=np.float32)  # (H, W, 3)
    steps = np.linspace(-1.0, 1.0, image.width, dtype=np.float32)
    across, down = np.cos(shot.light_angle) * steps, np.sin(shot.light_angle) * steps
    light = shot.brightness * (1.0 + shot.light_slope * (across[None, :] + down[:, None]))  # (H, W)
    lit = pixels * light[:, :, None] * np.asarray(shot.cast, dtype=np.float32)
    return Image.fromarray(np.clip(lit, 0.0, 255.0).astype(np.uint8))


def _hair_is(name: str) -> Callable[[_Person, _Shot], bool]:
    return lambda person, shot: person.hair_name == name and shot.grey < 0.5 and _style(person, shot) != "bald"


#: the attributes of CelebA in their order: share of ones where drawn at random, and what decides where it can be seen
_ATTRIBUTES: Final[Mapping[str, tuple[float, Callable[[_Person, _Shot], bool] | None]]] = {
    "5_o_Clock_Shadow": (0.11, lambda person, shot: _beard(person, shot) == "stubble"),
    "Arched_Eyebrows": (0.4, lambda person, shot: person.arch > 0.08),
    "Attractive": (0.5, None),
    "Bags_Under_Eyes": (0.37, lambda person, shot: shot.age > 0.62),
    "Bald": (0.08, lambda person, shot: _style(person, shot) == "bald"),
    "Bangs": (0.18, lambda person, shot: _style(person, shot) == "bangs"),
    "Big_Lips": (0.4, lambda person, shot: person.lips > 0.07),
    "Big_Nose": (0.4, lambda person, shot: person.nose_width > 0.15),
    "Black_Hair": (0.24, _hair_is("black")),
    "Blond_Hair": (0.14, _hair_is("blond")),
    "Blurry": (0.05, None),
    "Brown_Hair": (0.2, _hair_is("brown")),
    "Bushy_Eyebrows": (0.4, lambda person, shot: person.brow > 0.095),
    "Chubby": (0.3, lambda person, shot: person.face_width > 0.88),
    "Double_Chin": (0.1, None),
    "Eyeglasses": (0.25, lambda person, shot: person.glasses),
    "Goatee": (0.11, lambda person, shot: _beard(person, shot) in ("goatee", "full")),
    "Gray_Hair": (0.3, lambda person, shot: shot.grey >= 0.5),
    "Heavy_Makeup": (0.25, lambda person, shot: person.makeup),
    "High_Cheekbones": (0.45, None),
    "Male": (0.5, lambda person, shot: person.male),
    "Mouth_Slightly_Open": (0.4, lambda person, shot: shot.mouth_open > 0.1),
    "Mustache": (0.13, lambda person, shot: _beard(person, shot) in ("mustache", "full")),
    "Narrow_Eyes": (0.3, lambda person, shot: person.eye_size * shot.eye_open < 0.09),
    "No_Beard": (0.7, lambda person, shot: _beard(person, shot) == "none"),
    "Oval_Face": (0.3, lambda person, shot: person.face_width < 0.8 and person.jaw < 0.6),
    "Pale_Skin": (0.2, lambda person, shot: person.skin_tone == 0),
    "Pointy_Nose": (0.4, lambda person, shot: person.pointy_nose),
    "Receding_Hairline": (0.15, None),
    "Rosy_Cheeks": (0.25, lambda person, shot: person.blush),
    "Sideburns": (0.2, None),
    "Smiling": (0.5, lambda person, shot: shot.smile > 0.2),
    "Straight_Hair": (0.2, lambda person, shot: _style(person, shot) == "straight"),
    "Wavy_Hair": (0.25, lambda person, shot: _style(person, shot) == "wavy"),
    "Wearing_Earrings": (0.28, lambda person, shot: person.earrings),
    "Wearing_Hat": (0.15, lambda person, shot: person.hat),
    "Wearing_Lipstick": (0.3, lambda person, shot: person.lipstick),
    "Wearing_Necklace": (0.25, lambda person, shot: person.necklace),
    "Wearing_Necktie": (0.17, lambda person, shot: person.tie),
    "Young": (0.5, lambda person, shot: shot.age < 0.5),
}


def class_names(spec: SyntheticSpec) -> tuple[str, ...]:
    """Return the names of the classes (letters, youngest first, as in MUFAC) or of the 40 attributes."""
    if spec.task == "multilabel":
        return tuple(_ATTRIBUTES)
    return tuple("abcdefghijklmnopqrstuvwxyz"[: spec.n_classes])


def _class_label(spec: SyntheticSpec, person: _Person, shot: _Shot, identity: int, image: int) -> int:
    noise = stream("synthetic", spec.seed, "noise", identity, image)
    if noise.random() < spec.noise_frac:
        return int(noise.integers(spec.n_classes))
    memory = stream("synthetic", spec.seed, "memorised", identity)
    if memory.random() < spec.memorised_frac:
        # a class that no image of the identity shows, so that the memorised label is always a wrong one
        window = _window(person.middle_stage, spec.n_classes)
        return int(memory.choice([label for label in range(spec.n_classes) if label not in window]))
    return shot.stage


def _attribute_label(spec: SyntheticSpec, person: _Person, shot: _Shot, identity: int, image: int) -> tuple[int, ...]:
    memory = stream("synthetic", spec.seed, "memorised", identity)
    memorised = memory.random(len(_ATTRIBUTES)) < spec.memorised_frac
    draws = memory.random(len(_ATTRIBUTES))
    flips = stream("synthetic", spec.seed, "noise", identity, image).random(len(_ATTRIBUTES)) < spec.noise_frac
    bits = []
    for place, (share, decide) in enumerate(_ATTRIBUTES.values()):
        visible = decide is not None and not memorised[place]
        bit = decide(person, shot) if decide is not None and visible else bool(draws[place] < share)
        bits.append(int(bit != bool(flips[place])))
    return tuple(bits)


def _n_images(spec: SyntheticSpec, identity: int) -> int:
    low, high = spec.images_per_identity
    return int(stream("synthetic", spec.seed, "count", identity).integers(low, high + 1))


def render_faces(spec: SyntheticSpec) -> Iterator[Face]:
    """Yield every image with its label, identity by identity.

    Args:
        spec: what to draw. Image j of identity k is the same however many identities there are.

    Yields:
        Faces in the order of ``identity`` and, within it, of ``image``; both count from 0.
    """
    label_of = _class_label if spec.task == "classification" else _attribute_label
    for identity in range(spec.n_identities):
        person = _person(spec, identity)
        for image in range(_n_images(spec, identity)):
            shot = _shot(spec, person, identity, image)
            label = label_of(spec, person, shot, identity, image)
            yield Face(identity, image, _draw(person, shot, spec.image_px), label)


def write_raw(spec: SyntheticSpec, folder: Path, layout: str) -> None:
    """Write images and annotation files exactly as a user has them on disk.

    Everything is written beside ``folder`` first, so that ``folder`` is complete or absent.

    Args:
        spec: what to draw.
        folder: where to; must be absent or empty.
        layout: ``mufac``, ``celeba``, ``celebahq``, ``manifest`` or ``synthetic`` (the same as ``manifest``).

    Raises:
        ConfigError: the layout is unknown, or cannot hold labels of this task or number of classes.
        DataError: ``folder`` is a file or a folder that holds something.
    """
    if layout not in _WRITERS:
        raise ConfigError(f"layout is {layout!r}, allowed: {', '.join(_WRITERS)}. Correct it in the configuration.")
    task, write = _WRITERS[layout]
    if task is not None and spec.task != task:
        raise ConfigError(f"synthetic.task is {spec.task!r}, but the {layout} layout holds {task} labels. Set it so.")
    if layout == "mufac" and spec.n_classes != _MUFAC_CLASSES:
        raise ConfigError(f"synthetic.n_classes is {spec.n_classes}, but the mufac layout has 8 classes. Set it to 8.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is a file or a folder that is not empty. Delete it, or name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as parent:
        fresh = Path(parent) / "raw"
        fresh.mkdir()
        write(spec, fresh)
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
    total = sum(_n_images(spec, identity) for identity in range(spec.n_identities))
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
        person = _person(spec, identity)
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


#: layout -> the task it needs (None: either), and what writes it
_WRITERS: Final[Mapping[str, tuple[str | None, Callable[[SyntheticSpec, Path], None]]]] = {
    "mufac": ("classification", _write_mufac),
    "celeba": ("multilabel", _write_celeba),
    "celebahq": ("multilabel", _write_celebahq),
    "manifest": (None, _write_manifest),
    "synthetic": (None, _write_manifest),
}
