"""One picture file as a viewer shows it: the only code that decodes pictures, whether indexed, packed or asked with.

What a viewer does and a plain conversion to RGB does not: a picture is turned as its EXIF orientation says, and what
is transparent is put on white. What cannot be shown rightly is refused: more than 8 bits in one channel (which Pillow
clips to white), several pictures in one file, and files that were cut short or are filled up with zeros, which decoders
show as a grey or smeared half without a word.
"""

import io
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Flag, auto
from functools import cache
from typing import NamedTuple

from PIL import ExifTags, Image, UnidentifiedImageError

from oneshui.errors import DataError

#: what pixels without colour lie on: the paper that pictures are printed on, and what browsers and the makers of
#: cut-outs put behind them
BACKGROUND = (255, 255, 255)
#: Pillow knows more; some of them start other programs (EPS) or have no mark to be known by (TGA). JPEG holds MPO,
#: what phones write
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")

#: modes of Pillow that a conversion to RGB clips to white or black
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: bytes: a run of zeros in compressed data that no picture of a few thousand pixels has
_ZEROS = 512
#: formats whose coding cannot say more pixels in a byte than this: one-bit pixels in deflate, a thousandfold
_BOUNDED, _MOST_PX = ("JPEG", "MPO", "PNG", "GIF", "BMP", "PPM"), 10_000
#: the others say a picture of one colour in a few bytes, whatever its size; nobody has a larger one of these
_FREE_PX = 2**24


class Kind(Flag):
    """In what a picture differs from an upright RGB picture of 8 bits."""

    TURNED = auto()
    TRANSPARENT = auto()
    PALETTE = auto()
    GREY = auto()
    CMYK = auto()
    SIXTEEN_BITS = auto()
    PROFILE = auto()

    @property
    def label(self) -> str:
        """What is said of such pictures in a report."""
        return _LABELS[self]


PLAIN = Kind(0)
_LABELS = {
    Kind.TURNED: "turned upright (EXIF orientation)",
    Kind.TRANSPARENT: "with transparency, put on white",
    Kind.PALETTE: "with a palette",
    Kind.GREY: "in grey",
    Kind.CMYK: "CMYK, converted without a colour profile",
    Kind.SIXTEEN_BITS: "16 bits a channel in colour, the upper 8 are kept",
    Kind.PROFILE: "with a colour profile other than sRGB, which is not applied",
}
#: kinds whose pixels were stored in another way before version 2 of this rule (as they lay in the file)
SHOWN_OTHERWISE = Kind.TURNED | Kind.TRANSPARENT


class Picture(NamedTuple):
    """A decoded picture.

    Attributes:
        image: upright, mode RGB (or L, where asked for).
        size: width and height of the whole picture as it is shown, px, whatever it was decoded at.
        kind: what was done to it.
    """

    image: Image.Image
    size: tuple[int, int]
    kind: Kind


def read_picture(data: bytes, *, draft_px: tuple[int, int] | None = None) -> Picture:
    """Return the picture in ``data``, the bytes of a file, as a viewer shows it.

    Pillow may warn of a broken EXIF block or an odd palette; ``quiet`` keeps that to itself, once for many pictures.

    Args:
        data: the whole file.
        draft_px: width and height that are enough. JPEGs are then decoded at a fraction of their size, and grey:
            for hashing only. Every byte is still read.

    Raises:
        DataError: it cannot be decoded, or not be shown rightly. The message names no file; the caller does.
    """
    try:
        return _read(data, draft_px)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        what = "not a picture that can be read" if data else "the file is empty"
        raise DataError(f"{what}; allowed: {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise many types on damaged files: OSError, SyntaxError, ValueError ...
        raise DataError(f"{type(error).__name__}: {error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings: what is wrong beside the pixels is no reason to refuse a picture. Not for use in threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(data: bytes, draft_px: tuple[int, int] | None) -> Picture:
    with Image.open(io.BytesIO(data), formats=_formats()) as image:
        _check_header(image, len(data))
        _check_complete(data, image)
        kind = _kind(data, image)
        width, height = image.size
        turn = _TURNS.get(_orientation(image))
        if draft_px is not None:
            image.draft("L", draft_px)
        image.load()
        if image.mode in _DEEP:  # some formats say so only now
            raise DataError(f"more than 8 bits a channel ({image.mode})")
        if image.format == "TIFF" and turn is not None:  # Pillow has turned it when it was loaded
            width, height = image.size
            kind, turn = kind | Kind.TURNED, None
        shown, transparent = _opaque(image, grey=draft_px is not None and image.mode == "L")
    if turn is not None:
        shown, kind = shown.transpose(turn), kind | Kind.TURNED
        width, height = (height, width) if turn in _SIDEWAYS else (width, height)
    return Picture(shown, (width, height), kind | Kind.TRANSPARENT if transparent else kind)


@cache
def _formats() -> tuple[str, ...]:
    """Return those of ``FORMATS`` that this Pillow can open."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


_SIDEWAYS = (
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
)  # fmt: skip


def _check_header(image: Image.Image, n_bytes: int) -> None:
    width, height = image.size
    free = 0 if image.format in _BOUNDED else _FREE_PX
    if width * height > free + _MOST_PX * n_bytes:  # before memory is taken for them
        raise DataError(f"its header says {width} x {height} px, more than the file can hold ({n_bytes} bytes)")
    if image.mode in _DEEP:
        raise DataError(f"more than 8 bits a channel ({image.mode})")
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1 and image.format != "MPO":  # a phone's JPEG has the picture first, and helpers behind it
        raise DataError(f"several pictures in one file, and nobody says which is meant ({n_frames})")


def _kind(data: bytes, image: Image.Image) -> Kind:
    """Return what the header says of the picture."""
    kind = PLAIN
    if image.mode in ("P", "PA"):
        kind |= Kind.PALETTE
    if image.mode in ("1", "L", "LA", "La"):
        kind |= Kind.GREY
    if image.mode == "CMYK":
        kind |= Kind.CMYK
    if image.format == "PNG" and data[24:25] == b"\x10":
        kind |= Kind.SIXTEEN_BITS
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, 8)  # type: ignore[attr-defined]  # BitsPerSample, of a TiffImageFile
        if max(bits if isinstance(bits, tuple) else (bits,)) > 8:
            kind |= Kind.SIXTEEN_BITS
    profile = image.info.get("icc_profile")
    if profile and b"sRGB" not in profile and b"s\0R\0G\0B" not in profile and image.mode not in ("L", "CMYK"):
        kind |= Kind.PROFILE
    return kind


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever a broken EXIF block makes of the parser: viewers ignore it as well
        return 1
    return value if isinstance(value, int) else 1


def _opaque(image: Image.Image, *, grey: bool) -> tuple[Image.Image, bool]:
    """Return the picture without transparency, and whether it had any."""
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        if layered.getchannel("A").getextrema() != (255, 255):
            ground = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
            return Image.alpha_composite(ground, layered).convert("RGB"), True
    return image.convert("L" if grey else "RGB"), False


# ---- is the file whole?


def _check_complete(data: bytes, image: Image.Image) -> None:
    """Refuse a file that ends too early or has a hole of zeros, as far as its format shows it.

    Raw pixels (BMP, PPM, TIFF without compression) show nothing: zeros are black there.
    """
    width, height = image.size
    match image.format:
        case "JPEG" | "MPO":
            _check_jpeg(data, width, height)
            return
        case "PNG":
            _check_png(data)
            return
        case "WEBP":
            parts = list(_webp_pixels(data))
        case "TIFF":
            parts = _tiff_pixels(image)
            if image.info.get("compression", "raw") == "raw":
                _check_raw_tiff(image, parts)
                return
        case "AVIF" | "JPEG2000":
            parts = [(0, len(data))]
        case _:
            return
    for start, end in parts:
        # black pictures of any size stay below this in all these formats (measured up to 3000 x 3000 px)
        _refuse_zeros(data, start, end, _ZEROS + width * height // 256)


def _refuse_zeros(data: bytes, start: int, end: int, allowed: int) -> None:
    """Refuse a run of more than ``allowed`` zeros, bytes, between ``start`` and ``end``."""
    at = data.find(bytes(allowed + 1), start, end)
    if at >= 0:
        rest = len(data[at:end]) - len(data[at:end].lstrip(b"\0"))
        raise DataError(f"a hole of zeros, as in a download that was cut off ({rest} bytes from {at} on)")


#: a marker that ends the coded data of a scan: not a coded 0xff, not a restart
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _check_jpeg(data: bytes, width: int, height: int) -> None:
    """Walk through the segments to the end of the image; decoders do not ask for it and fill up with grey."""
    components, progressive = 1, False
    tables: dict[int, tuple[int, int]] = {}
    at, scanned = 2, False
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            if scanned:
                return
            continue
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(body)
        if marker in _SOF and len(body) > 5:
            components, progressive = body[5], marker not in (0xC0, 0xC1)
        elif marker == 0xC4:
            tables |= dict(_zero_codes(body))
        elif marker == 0xDA:
            scanned = True
            following = _MARKER.search(data, at)
            if following is None:
                break
            blocks = components * (width // 8 + 2) * (height // 8 + 2)
            flat = blocks // 4 if progressive else _zeros_of_flat(blocks, body, tables)
            _refuse_zeros(data, at, following.start(), _ZEROS + flat)
            at = following.start()
    raise DataError("cut short: no end of image after the scan" if scanned else "cut short: no scan")


def _zero_codes(body: bytes) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield of each Huffman table its number and, of the code that is all zeros, its length (bits) and symbol."""
    while len(body) > 17:
        counts = body[1:17]
        if total := sum(counts):
            yield body[0], (next(i for i, count in enumerate(counts, 1) if count), body[17 : 17 + total][0])
        body = body[17 + total :]


def _zeros_of_flat(blocks: int, scan: bytes, tables: dict[int, tuple[int, int]]) -> int:
    """Return how many bytes of zeros a picture of one colour can have in one piece.

    Where the code of zeros means "as before" for the mean of a block, and "nothing else" for the rest, a flat area is
    zeros all through: two bits a block or a little more. With other tables zeros mean a pattern that no picture has.

    Args:
        blocks: of 8 x 8 px, over all colours.
        scan: its header, which says what tables it uses.
        tables: of ``_zero_codes``.
    """
    pairs = scan[2 : 1 + 2 * scan[0] : 2] if scan else b""
    means = [tables.get(pair >> 4, (0, -1)) for pair in pairs]
    rests = [tables.get(0x10 | pair & 15, (0, -1)) for pair in pairs]
    if not pairs or any(symbol != 0 for _, symbol in means + rests):
        return 0
    return blocks * (max(means)[0] + max(rests)[0]) // 8


def _check_png(data: bytes) -> None:
    """Compare the check sums of all chunks that pixels depend on; Pillow skips those of the pixels."""
    at = 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if name == b"IEND":
            return
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            told = int.from_bytes(data[end : end + 4], "big")
            if zlib.crc32(memoryview(data)[at + 4 : end]) != told:
                raise DataError(f"damaged: a check sum is wrong ({name.decode()} at byte {at})")
        at = end + 4
    raise DataError("cut short: the last part of the file is missing")


def _tiff_pixels(image: Image.Image) -> list[tuple[int, int]]:
    """Return where the coded strips or tiles start and end."""
    tags = image.tag_v2  # type: ignore[attr-defined]  # of a TiffImageFile
    return [
        (start, start + count)
        for offsets, counts in ((273, 279), (324, 325))
        for start, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
    ]


def _check_raw_tiff(image: Image.Image, parts: list[tuple[int, int]]) -> None:
    """Refuse strips or tiles that hold fewer bytes than the size of the picture; Pillow leaves the rest black."""
    bits = image.tag_v2.get(258, 1)  # type: ignore[attr-defined]
    wanted = image.width * image.height * sum(bits if isinstance(bits, tuple) else (bits,)) // 8
    held = sum(end - start for start, end in parts)
    if parts and held < wanted:  # old writers leave the counts out
        raise DataError(f"cut short: its parts hold fewer pixels than its header says ({held} of {wanted} bytes)")


def _webp_pixels(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the coded pixels start and end."""
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L"):
            yield at + 8, at + 8 + length
        at += 8 + length + length % 2
