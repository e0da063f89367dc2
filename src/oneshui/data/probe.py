"""What the image files hold: their size, a perceptual hash, and whether they can be read at all.

Every image is truly decoded once, before anything is trained; one that cannot be read is reported with its path and
never skipped. JPEGs are decoded at a fraction of their size (scaling inside the DCT), which still reads every byte.
Width, height and hash describe the picture as a viewer shows it (``oneshui.data.pictures``).
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from oneshui.data.pictures import PLAIN, Kind, quiet, read_picture
from oneshui.errors import ConfigError, DataError
from oneshui.files import read_regular

#: images per task of the thread pool: enough to hide its cost, few enough for a steady progress bar
_CHUNK = 64
#: the hash is taken from 32 x 32 px, so twice that is the smallest decoding that still averages real pixels
_DECODED_PX = (64, 64)
_HASH_BITS = 64
#: pairs of similar images kept in memory before they are merged into groups (16 bytes each)
_MAX_PENDING_PAIRS = 4_000_000


class _Probe(NamedTuple):
    width: int
    height: int
    phash: int
    error: str | None
    content: int = 0
    kind: Kind = PLAIN


def probe_images(folder: Path, paths: Sequence[str], *, n_threads: int, progress: bool) -> pd.DataFrame:
    """Return one row per image with its size, its hash and what is wrong with it.

    Args:
        folder: raw folder of the dataset.
        paths: image files, relative to ``folder``.
        n_threads: threads that decode, at least 1.
        progress: whether to show a progress bar on standard error.

    Returns:
        Columns path, width and height (px, as shown), phash (uint64), error: None, "missing" or "unreadable: ...",
        content (uint64, of the file's bytes: ``content_of``) and kind (int, of ``pictures.Kind``). Numbers are 0 where
        there is an error.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    pool = ThreadPoolExecutor(max(1, n_threads))
    probes: list[_Probe] = []
    with quiet(), tqdm(total=len(paths), desc="probe", unit="img", disable=not progress) as bar:
        try:
            for chunk in pool.map(lambda names: [_probe(folder / name) for name in names], chunks):
                probes += chunk
                bar.update(len(chunk))
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt ends now, not after 200,000 images
    return _probe_frame(paths, probes)


def _probe_frame(paths: Sequence[str], probes: list[_Probe]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": list(paths),
            "width": np.array([probe.width for probe in probes], dtype=np.int32),
            "height": np.array([probe.height for probe in probes], dtype=np.int32),
            "phash": np.array([probe.phash for probe in probes], dtype=np.uint64),
            "error": pd.Series([probe.error for probe in probes], dtype=object),
            "content": np.array([probe.content for probe in probes], dtype=np.uint64),
            "kind": np.array([probe.kind.value for probe in probes], dtype=np.int32),
        }
    )


def _probe(path: Path) -> _Probe:
    try:
        data = read_regular(path)
        picture = read_picture(data, draft_px=_DECODED_PX)
    except (FileNotFoundError, NotADirectoryError):
        return _Probe(0, 0, 0, "missing")
    except OSError as error:
        return _Probe(0, 0, 0, f"unreadable: {error.strerror or error}")
    except DataError as error:
        return _Probe(0, 0, 0, f"unreadable: {error}")
    return _Probe(*picture.size, _phash(picture.image), None, content_of(data), picture.kind)


def content_of(data: bytes) -> int:
    """Return 64 bits that name the bytes of a file: two files of one name with other pixels never share them."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def _phash(image: Image.Image) -> int:
    """Return the 64 bits of ``imagehash.phash``, first bit highest, as in the hash's usual hexadecimal form."""
    bits: NDArray[Any] = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def duplicate_groups(phash: NDArray[np.uint64], max_distance: int) -> NDArray[np.int32]:
    """Return the group of each image; images are linked if their hashes differ in at most ``max_distance`` bits.

    Groups are the connected components of these links, numbered from 0 in the order of their first image. The result
    is exact: two hashes within d bits agree fully on at least one of d + 1 bands of bits (pigeonhole), so that only
    hashes of one bucket of a band need comparing. 200,000 hashes take seconds at the distances of use (0 to 4).

    Links chain: a group can hold pictures that are further apart than ``max_distance``. On MUFAC, distances 0 and 2
    join copies of one picture only; every pair looked at that distance 4 adds shows two different people.

    Args:
        phash: perceptual hashes, (N,) uint64.
        max_distance: largest Hamming distance of a pair that counts as the same picture, 0 to 64 bits.

    Raises:
        ConfigError: ``max_distance`` is out of range.
    """
    if not 0 <= max_distance <= _HASH_BITS:
        raise ConfigError(
            f"duplicate_distance = {max_distance} bits, allowed: 0 to {_HASH_BITS} (of a {_HASH_BITS}-bit hash). "
            "Set it to 0 or 2 in the dataset's configuration."
        )
    unique, inverse = np.unique(np.asarray(phash, dtype=np.uint64), return_inverse=True)
    group = np.arange(len(unique))
    if max_distance:
        for left, right in _batches(_close_pairs(unique, max_distance)):
            group = _merge(group, left, right)
    _, first, member = np.unique(group[inverse], return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int32)
    number[np.argsort(first)] = np.arange(len(first))
    return number[member]


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def _close_pairs(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[_Pairs]:
    """Yield the pairs within ``max_distance``, a pair at least once."""
    for bucket in _bands(hashes, max_distance + 1):
        order = np.argsort(bucket, kind="stable")
        sorted_hashes, sorted_bucket = hashes[order], bucket[order]
        bucket_end = np.searchsorted(sorted_bucket, sorted_bucket, side="right")
        at = np.arange(len(hashes))
        # compare every hash with its k-th successor in the bucket, k = 1, 2 ...: memory stays linear in the number
        # of hashes, however uneven the buckets are
        for step in range(1, len(hashes)):
            at = at[bucket_end[at] > at + step]
            if not len(at):
                break
            close = at[np.bitwise_count(sorted_hashes[at] ^ sorted_hashes[at + step]) <= max_distance]
            if len(close):
                yield order[close], order[close + step]


def _bands(hashes: NDArray[np.uint64], n_bands: int) -> Iterator[NDArray[np.uint64]]:
    """Yield the hashes' bits in each of ``n_bands`` disjoint bands that together hold all bits."""
    if n_bands > _HASH_BITS // 4:
        # bands below 4 bits: 16 buckets times as many passes cost more than comparing all pairs once
        yield np.zeros_like(hashes)
        return
    edges = np.linspace(0, _HASH_BITS, n_bands + 1).astype(int).tolist()
    for low, high in pairwise(edges):
        mask = np.uint64((1 << high) - (1 << low))
        yield hashes & mask


def _batches(pairs: Iterator[_Pairs]) -> Iterator[_Pairs]:
    """Join small batches of pairs, so that groups are merged a few times only, but never hold too many pairs."""
    pending: list[_Pairs] = []
    n_pending = 0
    for pair in pairs:
        pending.append(pair)
        n_pending += len(pair[0])
        if n_pending >= _MAX_PENDING_PAIRS:
            yield _concatenate(pending)
            pending, n_pending = [], 0
    if pending:
        yield _concatenate(pending)


def _concatenate(pairs: list[_Pairs]) -> _Pairs:
    left, right = zip(*pairs, strict=True)
    return np.concatenate(left), np.concatenate(right)


def _merge(group: NDArray[Any], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[Any]:
    """Return the groups after those of ``left`` have been joined with those of ``right``."""
    n_groups = int(group.max()) + 1
    links = coo_array((np.ones(len(left)), (group[left], group[right])), shape=(n_groups, n_groups))
    _, merged = connected_components(links, directed=False)
    joined: NDArray[Any] = merged[group]
    return joined
