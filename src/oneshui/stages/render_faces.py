"""Synthetic faces, written as users have raw data."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneshui.config import SyntheticSpec
from oneshui.data.raw_layouts import write_raw
from oneshui.files import write_text


def render_faces(marker_path: Path, *, layout: str, spec: Mapping[str, Any]) -> None:
    """Render a synthetic dataset into the folder of ``marker_path``, as users have it in the raw ``layout``.

    The folder is ours and is emptied first; the marker is written last, once everything is there.

    Args:
        marker_path: small JSON file that stands for the whole folder.
        layout: celeba, celebahq, mufac, manifest or synthetic.
        spec: keys of ``SyntheticSpec``.
    """
    folder = marker_path.parent
    shutil.rmtree(folder, ignore_errors=True)
    write_raw(SyntheticSpec.from_dict(spec), folder, layout)
    write_text(marker_path, json.dumps({"layout": layout, "spec": dict(spec)}, indent=1) + "\n")
