"""Cartoon faces drawn by our own code: data for the demo and for testing the readers, with nobody in it.

An identity fixes geometry and colours; pose, light, background, expression and the age shown vary by image. What a
label holds is known exactly: a part that can be seen (the age; attributes such as ``Smiling``), a part that is
constant per identity and can only be memorised, and noise. A model trained on some identities is therefore right on
their images for reasons that do not carry over to other identities, so that forgetting them can be measured.

Every number comes from a stream named after the identity or the image: an image does not depend on how many others
are drawn, on the size in pixels, or on the share of memorised and noisy labels.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from PIL import Image

from oneshui.config import SyntheticSpec
from oneshui.data.cartoon import Person, Shot, beard_of, draw, person_of, shot_of, style_of, window_of
from oneshui.seeds import stream

_MULTILABEL_STAGES: Final = 8  # ages shown where no class count asks for another number


@dataclass(frozen=True)
class Face:
    """One image with its label: a class number, or one 0/1 per attribute."""

    identity: int
    image: int  # running number within the identity
    pixels: Image.Image  # RGB, image_px x image_px
    label: int | tuple[int, ...]


def _hair_is(name: str) -> Callable[[Person, Shot], bool]:
    return lambda person, shot: person.hair_name == name and shot.grey < 0.5 and style_of(person, shot) != "bald"


#: the attributes of CelebA in their order: share of ones where drawn at random, and what decides where it can be seen
_ATTRIBUTES: Final[Mapping[str, tuple[float, Callable[[Person, Shot], bool] | None]]] = {
    "5_o_Clock_Shadow": (0.11, lambda person, shot: beard_of(person, shot) == "stubble"),
    "Arched_Eyebrows": (0.4, lambda person, shot: person.arch > 0.08),
    "Attractive": (0.5, None),
    "Bags_Under_Eyes": (0.37, lambda person, shot: shot.age > 0.62),
    "Bald": (0.08, lambda person, shot: style_of(person, shot) == "bald"),
    "Bangs": (0.18, lambda person, shot: style_of(person, shot) == "bangs"),
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
    "Goatee": (0.11, lambda person, shot: beard_of(person, shot) in ("goatee", "full")),
    "Gray_Hair": (0.3, lambda person, shot: shot.grey >= 0.5),
    "Heavy_Makeup": (0.25, lambda person, shot: person.makeup),
    "High_Cheekbones": (0.45, None),
    "Male": (0.5, lambda person, shot: person.male),
    "Mouth_Slightly_Open": (0.4, lambda person, shot: shot.mouth_open > 0.1),
    "Mustache": (0.13, lambda person, shot: beard_of(person, shot) in ("mustache", "full")),
    "Narrow_Eyes": (0.3, lambda person, shot: person.eye_size * shot.eye_open < 0.09),
    "No_Beard": (0.7, lambda person, shot: beard_of(person, shot) == "none"),
    "Oval_Face": (0.3, lambda person, shot: person.face_width < 0.8 and person.jaw < 0.6),
    "Pale_Skin": (0.2, lambda person, shot: person.skin_tone == 0),
    "Pointy_Nose": (0.4, lambda person, shot: person.pointy_nose),
    "Receding_Hairline": (0.15, None),
    "Rosy_Cheeks": (0.25, lambda person, shot: person.blush),
    "Sideburns": (0.2, None),
    "Smiling": (0.5, lambda person, shot: shot.smile > 0.2),
    "Straight_Hair": (0.2, lambda person, shot: style_of(person, shot) == "straight"),
    "Wavy_Hair": (0.25, lambda person, shot: style_of(person, shot) == "wavy"),
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


def _class_label(spec: SyntheticSpec, person: Person, shot: Shot, identity: int, image: int) -> int:
    noise = stream("synthetic", spec.seed, "noise", identity, image)
    if noise.random() < spec.noise_frac:
        return int(noise.integers(spec.n_classes))
    memory = stream("synthetic", spec.seed, "memorised", identity)
    if memory.random() < spec.memorised_frac:
        # a class that no image of the identity shows, so that the memorised label is always a wrong one
        window = window_of(person.middle_stage, spec.n_classes)
        return int(memory.choice([label for label in range(spec.n_classes) if label not in window]))
    return shot.stage


def _attribute_label(spec: SyntheticSpec, person: Person, shot: Shot, identity: int, image: int) -> tuple[int, ...]:
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


def n_images(spec: SyntheticSpec, identity: int) -> int:
    """Return how many images an identity has."""
    low, high = spec.images_per_identity
    return int(stream("synthetic", spec.seed, "count", identity).integers(low, high + 1))


def person_in(spec: SyntheticSpec, identity: int) -> Person:
    """Return the person of an identity."""
    return person_of(identity, seed=spec.seed, n_stages=_n_stages(spec))


def _n_stages(spec: SyntheticSpec) -> int:
    return spec.n_classes if spec.task == "classification" else _MULTILABEL_STAGES


def render_faces(spec: SyntheticSpec) -> Iterator[Face]:
    """Yield every image with its label, identity by identity.

    Args:
        spec: what to draw. Image j of identity k is the same however many identities there are.

    Yields:
        Faces in the order of ``identity`` and, within it, of ``image``; both count from 0.
    """
    label_of = _class_label if spec.task == "classification" else _attribute_label
    for identity in range(spec.n_identities):
        person = person_in(spec, identity)
        for image in range(n_images(spec, identity)):
            shot = shot_of(person, identity, image, seed=spec.seed, n_stages=_n_stages(spec))
            label = label_of(spec, person, shot, identity, image)
            yield Face(identity, image, draw(person, shot, spec.image_px), label)
