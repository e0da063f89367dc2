"""Pictures as a viewer shows them: turned, on white, or refused; and the same wherever pixels are taken from a file."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from oneshui.data.pack import decode
from oneshui.data.pictures import FORMATS, PLAIN, Kind, quiet, read_picture
from oneshui.data.probe import probe_images
from oneshui.errors import DataError


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def smooth(height: int = 40, width: int = 56, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def coded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(read_picture(data).image)


# ---- what is stored today stays as it is


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("JPEG", {"optimize": True, "quality": 60}),
        ("JPEG", {"subsampling": 0}), ("PNG", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("JPEG2000", {}), ("AVIF", {}),
    ],
)  # fmt: skip
def test_upright_rgb_pictures_are_what_pillow_decodes(kind: str, options: dict[str, Any]) -> None:
    data = coded(smooth(), kind, **options)
    picture = read_picture(data)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(picture.image), np.asarray(image.convert("RGB")))
    assert picture.kind == PLAIN
    assert picture.size == (56, 40)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", Kind.GREY), ("1", Kind.GREY), ("P", Kind.PALETTE), ("RGBA", PLAIN), ("LA", Kind.GREY)]
)
def test_other_modes_become_rgb_and_opaque_layers_change_nothing(mode: str, kind: Kind) -> None:
    image = smooth().convert(mode)
    picture = read_picture(coded(image, "PNG"))
    assert np.array_equal(np.asarray(picture.image), np.asarray(image.convert("RGB")))
    assert picture.kind == kind


def test_cmyk_is_converted_and_counted() -> None:
    data = coded(smooth().convert("CMYK"), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")))
    assert read_picture(data).kind == Kind.CMYK


# ---- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_in_every_format(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = coded(smooth(), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(pixels(data), shown)
    for draft in (None, (64, 64)):
        picture = read_picture(data, draft_px=draft)
        assert picture.size == (shown.shape[1], shown.shape[0])
        assert picture.kind == (PLAIN if orientation == 1 else Kind.TURNED)


def test_photos_of_a_phone_are_hashed_and_stored_like_the_same_picture_upright(tmp_path: Path) -> None:
    upright = smooth(64, 48)
    upright.save(tmp_path / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "2.png", exif=exif)
    probed = probe_images(tmp_path, ["0.png", "2.png"], n_threads=1, progress=False)
    assert probed["phash"].nunique() == 1 and probed["content"].nunique() == 2
    assert probed[["width", "height"]].to_numpy().tolist() == [[48, 64], [48, 64]]
    assert np.array_equal(decode(tmp_path / "0.png", 64, 48), decode(tmp_path / "2.png", 64, 48))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00II*\x00\x08", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00\x01", b"no"])
def test_a_broken_exif_block_is_no_reason_to_refuse(exif: bytes) -> None:
    data = coded(smooth(), "JPEG", exif=exif)
    assert np.array_equal(pixels(data), pixels(coded(smooth(), "JPEG")))


def test_an_orientation_that_does_not_exist_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert read_picture(coded(smooth(), "JPEG", exif=exif)).kind == PLAIN


# ---- transparency


def cut_out(hidden: tuple[int, int, int]) -> Image.Image:
    array = np.asarray(smooth(48, 48).convert("RGBA")).copy()
    y, x = np.mgrid[:48, :48]
    hole = (y - 24) ** 2 + (x - 24) ** 2 > 20**2
    array[hole] = (*hidden, 0)
    return Image.fromarray(array)


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "WEBP", "lossless": True, "exact": True}])
def test_what_transparency_hides_is_never_stored(options: dict[str, Any]) -> None:
    shown = []
    for hidden in ((0, 255, 0), (10, 20, 30)):
        file = io.BytesIO()
        cut_out(hidden).save(file, **options)
        picture = read_picture(file.getvalue())
        assert picture.kind == Kind.TRANSPARENT
        shown.append(np.asarray(picture.image))
    assert np.array_equal(shown[0], shown[1])
    assert (shown[0][0, 0] == 255).all()
    assert np.array_equal(shown[0][24, 24], np.asarray(smooth(48, 48))[24, 24])


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 128))
    assert np.abs(pixels(coded(image, "PNG"))[0, 0].astype(int) - [127, 177, 227]).max() <= 1


def with_key() -> Image.Image:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    return image


@pytest.mark.parametrize(
    "data",
    [
        coded(with_key(), "PNG", transparency=(1, 2, 3)),
        coded(with_key().convert("L"), "PNG", transparency=with_key().convert("L").getpixel((1, 1))),
        coded(with_key().quantize(4), "PNG", transparency=with_key().quantize(4).getpixel((1, 1))),
        coded(with_key().quantize(4), "GIF", transparency=with_key().quantize(4).getpixel((1, 1))),
        coded(Image.new("LA", (4, 4), (7, 0)), "PNG"),
    ],
    ids=["rgb", "grey", "palette", "gif", "grey-alpha"],
)
def test_a_transparent_colour_is_transparency_as_well(data: bytes) -> None:
    picture = read_picture(data)
    assert np.asarray(picture.image)[1, 1].tolist() == [255, 255, 255]
    assert Kind.TRANSPARENT in picture.kind


# ---- depth


def deep_png(colour: int, channels: int, value: int) -> bytes:
    """A PNG of 4 x 4 px with 16 bits a channel: Pillow writes none in colour."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)
    rows = (b"\0" + struct.pack(">H", value) * channels * 4) * 4
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bits_in_colour_keep_their_upper_half_and_are_counted() -> None:
    picture = read_picture(deep_png(2, 3, 0xABCD))
    assert np.asarray(picture.image)[0, 0].tolist() == [0xAB] * 3
    assert picture.kind == Kind.SIXTEEN_BITS


@pytest.mark.parametrize(
    "data",
    [
        deep_png(0, 1, 0x1234),
        coded(Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)), "TIFF"),
        coded(Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32)), "TIFF"),
        coded(Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)), "TIFF"),
        b"P5 2 2 65535\n" + bytes(range(8)),
    ],
    ids=["png", "tiff16", "tiff32", "float", "pgm"],
)
@pytest.mark.parametrize("draft", [None, (64, 64)])
def test_deep_grey_pictures_are_refused_when_probed_and_when_packed(data: bytes, draft: Any) -> None:
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read_picture(data, draft_px=draft)


# ---- files that are not whole

CODED = [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"optimize": True}), ("PNG", {}), ("WEBP", {}),
    ("WEBP", {"lossless": True}), ("GIF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}), ("TIFF", {"compression": "jpeg"}), ("AVIF", {}), ("JPEG2000", {}),
]  # fmt: skip


def noisy(size: int = 160) -> Image.Image:
    draw = np.random.default_rng(0)
    grain = draw.normal(0, 20, (size, size, 3))
    return Image.fromarray((np.asarray(smooth(size, size)) + grain).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("kind", "options"), CODED)
@pytest.mark.parametrize("damage", ["cut", "short", "zeros", "hole"])
def test_a_file_that_is_not_whole_is_refused_in_every_coded_format(
    kind: str, options: dict[str, Any], damage: str
) -> None:
    whole = coded(noisy(), kind, **options)
    n = len(whole)
    broken = {
        "cut": whole[: n * 6 // 10],
        "short": whole[:-10],
        "zeros": whole[: n // 2] + bytes(n - n // 2),
        "hole": whole[: n // 2] + bytes(n // 4) + whole[n // 2 + n // 4 :],
    }[damage]
    read_picture(whole)
    for draft in (None, (64, 64)):
        with pytest.raises(DataError):
            read_picture(broken, draft_px=draft)


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF"])
def test_a_file_of_raw_pixels_that_is_cut_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match="truncated"):
        read_picture(coded(noisy(), kind)[:-2000])


def test_a_tiff_whose_strips_hold_less_than_the_picture_is_refused() -> None:
    data = coded(noisy(40), "TIFF")
    taller = data.replace(struct.pack("<HHII", 257, 4, 1, 40), struct.pack("<HHII", 257, 4, 1, 4000))
    taller = taller.replace(struct.pack("<HHIHH", 257, 3, 1, 40, 0), struct.pack("<HHIHH", 257, 3, 1, 4000, 0))
    assert taller != data
    with pytest.raises(DataError, match=r"its parts hold fewer pixels than its header says \(4800 of 480000 bytes\)"):
        read_picture(taller)


def test_a_zero_filled_jpeg_says_that_it_is_cut_short(tmp_path: Path) -> None:
    whole = coded(noisy(), "JPEG", quality=95)
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    probed = probe_images(tmp_path, ["a.jpg"], n_threads=1, progress=False)
    assert probed["error"].tolist() == ["unreadable: cut short: no end of image after the scan"]
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded \(cut short: no end of image after the scan\)"):
        decode(tmp_path / "a.jpg", 8, 8)


@pytest.mark.parametrize(("kind", "options"), CODED)
@pytest.mark.parametrize("colour", ["white", "black"])
def test_flat_pictures_with_a_lot_of_zeros_are_whole(kind: str, options: dict[str, Any], colour: str) -> None:
    assert read_picture(coded(Image.new("RGB", (900, 900), colour), kind, **options)).size == (900, 900)


def test_zeros_behind_the_end_of_a_jpeg_do_no_harm() -> None:
    data = coded(noisy(), "JPEG")
    assert np.array_equal(pixels(data + bytes(5000)), pixels(data))


def test_the_thumbnail_in_a_jpeg_is_not_taken_for_its_end() -> None:
    thumbnail = coded(smooth(8, 8), "JPEG")
    data = coded(noisy(), "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert read_picture(data).size == (160, 160)
    with pytest.raises(DataError, match="no end of image"):
        read_picture(data[:-500])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_pictures_in_one_file_are_refused(kind: str) -> None:
    data = coded(smooth(), kind, save_all=True, append_images=[smooth(seed=1)])
    with pytest.raises(DataError, match=r"several pictures in one file, and nobody says which is meant \(2\)"):
        read_picture(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the file is empty"),
        (b"no picture", "not a picture that can be read; allowed: JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture that can be read"),
        (coded(Image.new("RGB", (9, 9)), "TGA"), "not a picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture that can be read"),
    ],
    ids=["empty", "text", "eps", "tga", "svg"],
)
def test_what_is_no_picture_is_refused_with_the_formats(data: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_picture(data)
    assert "EPS" not in FORMATS
