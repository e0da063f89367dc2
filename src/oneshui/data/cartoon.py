"""Drawing cartoon faces: what a person is, what one picture of them shows, and the pen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from oneshui.seeds import stream

_Colour = tuple[int, int, int]
_Array = npt.NDArray[np.float64]

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
class Person:
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
class Shot:
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


def window_of(middle: int, n_stages: int) -> range:
    """Age stages that the images of one identity show: as in MUFAC, more than one if there are enough."""
    reach = (n_stages - 1) // 3  # leaves other classes for the memorised label
    return range(max(0, middle - reach), min(n_stages, middle + reach + 1))


def person_of(identity: int, *, seed: int, n_stages: int) -> Person:
    """Return the person of an identity; ages come in ``n_stages`` stages."""
    rng = stream("synthetic", seed, "identity", identity)

    def chance(share: float) -> bool:
        return bool(rng.random() < share)

    male = chance(0.5)
    tone = int(rng.integers(len(_SKIN)))
    hair_name = str(rng.choice(list(_HAIR), p=[0.35, 0.3, 0.2, 0.15]))
    return Person(
        male=male,
        middle_stage=int(rng.integers(n_stages)),
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


def shot_of(person: Person, identity: int, image: int, *, seed: int, n_stages: int) -> Shot:
    """Return what is particular to one image of a person."""
    rng = stream("synthetic", seed, "image", identity, image)
    window = window_of(person.middle_stage, n_stages)
    stage = int(rng.integers(window.start, window.stop))
    wall = _random_colour(rng, 90, 210)
    cast = rng.uniform(0.94, 1.06, size=3)
    return Shot(
        # a gap is left between neighbouring stages, so that the class can be told from the picture
        age=(stage + rng.uniform(0.35, 0.65)) / n_stages,
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


def beard_of(person: Person, shot: Shot) -> str:
    return person.beard if shot.age > 0.3 else "none"


def style_of(person: Person, shot: Shot) -> str:
    return "short" if person.style == "bald" and shot.age < 0.4 else person.style


class _Pen:
    """Draws in face coordinates: origin between nose and eyes, x to the right, y down, chin at y = 1."""

    def __init__(self, image: Image.Image, shot: Shot) -> None:
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


def _outline(person: Person, shot: Shot, grow: float) -> _Array:
    """Outline of the head; children have a rounder one."""
    x, y = _CIRCLE.T
    taper = 1.0 - 0.45 * person.jaw * (1.0 - shot.child) * np.maximum(0.0, y) ** 2
    return np.stack([x * taper * _half_width(person, shot), y * (1.0 - 0.1 * shot.child)], axis=1) * grow


def _half_width(person: Person, shot: Shot) -> float:
    return person.face_width * (1.0 + 0.12 * shot.child)


def _draw_behind(pen: _Pen, person: Person, shot: Shot, hair: _Colour) -> None:
    """Wall, long hair, neck, shoulders, ears and what is worn there."""
    width = _half_width(person, shot)
    x, y, radius = shot.decor_at
    pen.oval((x, y), (radius, radius), shot.decor)
    if style_of(person, shot) == "straight":
        pen.oval((0.0, -0.1), (width + 0.22, 1.02), hair)
        pen.shape([(-width - 0.2, -0.2), (width + 0.2, -0.2), (width + 0.28, 1.3), (-width - 0.28, 1.3)], hair)
    if style_of(person, shot) == "wavy":
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


def _draw_hair(pen: _Pen, person: Person, shot: Shot, hair: _Colour) -> None:
    """The hair in front, whose line rises with age, and the hat."""
    style = style_of(person, shot)
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


def _draw_age(pen: _Pen, person: Person, shot: Shot, eye_y: float) -> None:
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


def _draw_eyes(pen: _Pen, person: Person, shot: Shot, eye_y: float, brow_colour: _Colour) -> None:
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


def _draw_nose(pen: _Pen, person: Person, shot: Shot, eye_y: float) -> None:
    wide = person.nose_width * (1.0 - 0.3 * shot.child)
    shadow = _shade(person.skin, 0.76)
    if person.pointy_nose:
        pen.shape([(0.02, eye_y + 0.06), (wide, 0.3), (-wide * 0.9, 0.3)], shadow)
    else:
        pen.line([(0.0, eye_y + 0.1), (0.0, 0.2)], 0.05, shadow)
        pen.oval((0.0, 0.25), (wide, 0.09), shadow)


def _draw_beard(pen: _Pen, person: Person, shot: Shot, hair: _Colour) -> None:
    beard = beard_of(person, shot)
    if beard in ("stubble", "full"):
        lower = _outline(person, shot, 1.0)[1:14]
        inner = [(-0.5, 0.3), (-0.3, 0.38), (0.3, 0.38), (0.5, 0.3)]
        pen.shape(np.concatenate([lower, inner]), hair if beard == "full" else _mix(person.skin, _DARK, 0.28))
    if beard in ("mustache", "full"):
        pen.shape([(0.0, 0.36), (0.3, 0.42), (0.36, 0.54), (0.0, 0.48), (-0.36, 0.54), (-0.3, 0.42)], hair)
    if beard == "goatee":
        pen.oval((0.0, 0.82), (0.2, 0.19), hair)


def _draw_mouth(pen: _Pen, person: Person, shot: Shot) -> None:
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


def _draw_glasses(pen: _Pen, person: Person, shot: Shot, eye_y: float) -> None:
    for side in (-1, 1):
        x = side * person.eye_gap
        pen.ring((x, eye_y), (0.25, 0.22), 0.06, person.frame)
        pen.line([(x + side * 0.25, eye_y), (side * _half_width(person, shot), eye_y - 0.06)], 0.06, person.frame)
    pen.line([(-person.eye_gap + 0.25, eye_y), (person.eye_gap - 0.25, eye_y)], 0.06, person.frame)


def draw(person: Person, shot: Shot, image_px: int) -> Image.Image:
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


def _lit(image: Image.Image, shot: Shot) -> Image.Image:
    """Return the picture under the light of the shot: brightness, a linear fall-off and a colour cast."""
    pixels = np.asarray(image, dtype=np.float32)  # (H, W, 3)
    steps = np.linspace(-1.0, 1.0, image.width, dtype=np.float32)
    across, down = np.cos(shot.light_angle) * steps, np.sin(shot.light_angle) * steps
    light = shot.brightness * (1.0 + shot.light_slope * (across[None, :] + down[:, None]))  # (H, W)
    lit = pixels * light[:, :, None] * np.asarray(shot.cast, dtype=np.float32)
    return Image.fromarray(np.clip(lit, 0.0, 255.0).astype(np.uint8))
