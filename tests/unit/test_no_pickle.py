"""Nothing that is read can run code: our source calls nothing that unpickles, and no reader of a pickle does."""

import ast
import gzip
import io
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tests.readers import OPTIONS, READERS, ROOT, our_header

from oneshui import yaml_files
from oneshui.errors import OneShuiError

# ---- the source

SOURCES = [
    *sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "workflow").rglob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
]  # fmt: skip
#: modules whose files can hold code
MODULES = {
    "pickle", "_pickle", "cPickle", "pickle5", "pickletools", "dill", "cloudpickle", "joblib", "shelve", "marshal",
    "jsonpickle", "pandas.compat.pickle_compat", "torch.package", "torch.hub", "code", "runpy", "imp", "dbm",
}  # fmt: skip
#: functions that unpickle, or run text, by the end of their dotted name
FUNCTIONS = {
    "torch.load", "torch.jit.load", "jit.load", "torch.hub.load", "hub.load", "torch.export.load",
    "torch.distributed.checkpoint.load", "load_state_dict_from_url",
    "np.load", "numpy.load", "np.fromfile",
    "np.loadtxt", "np.genfromtxt", "numpy.lib.format.read_array", "format.read_array", "pd.read_pickle", 
    "pandas.read_pickle",
    "read_pickle", "pd.read_hdf", "read_hdf", "pd.eval", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "yaml.full_load_all", "yaml.load_all", "pa.deserialize", "eval", "exec", "execfile", "__import__", "os.system",
    "os.popen", "timm.models.load_checkpoint", "load_checkpoint", "load_pretrained", "frame.query", "frame.eval",
}  # fmt: skip


def dotted(node: ast.AST) -> str:
    """Return a name like ``torch.load``; what stands before a call or an index is left out."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield what in a source could run code that a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{each.name}" for each in node.names]
            yield from (name for name in names if node.module in MODULES or name in MODULES | FUNCTIONS)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in FUNCTIONS:
                yield name
            if name == "yaml.load" and {dotted(each.value) for each in node.keywords} != {"_Loader"}:
                yield "yaml.load with another loader"
            yield from (
                f"{keyword.arg} of {name}"
                for keyword in node.keywords
                if (
                    keyword.arg == "allow_pickle"
                    and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
                )
                or keyword.arg == "weights_only"
            )
        elif isinstance(node, ast.Attribute) and node.attr in ("FullLoader", "UnsafeLoader", "Loader", "Unpickler"):
            yield dotted(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_calls_what_unpickles(path: Path) -> None:
    found = list(dangers(ast.parse(path.read_text(encoding="utf-8"))))
    # a fork runs the script with which the job that asked for it was started
    assert found == (["runpy"] if path.name == "forkserver.py" else [])


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "import joblib as j", "from pickle import loads", "from torch import load", "torch.load(p)",
        "np.load(p, allow_pickle=True)", "np.load(p)", "open_memmap(p, allow_pickle=x)", "pd.read_pickle(p)",
        "yaml.load(t, Loader=yaml.UnsafeLoader)", "yaml.load(t)", "yaml.load(t, yaml.Loader)", "yaml.full_load(t)",
        "eval(t)", "exec(t)", "torch.jit.load(p)", "torch.load(p, weights_only=True)", "import shelve, marshal",
        "from cloudpickle import load", "timm.models.load_checkpoint(m, p)",
    ],
)  # fmt: skip
def test_what_unpickles_is_found(text: str) -> None:
    assert list(dangers(ast.parse(text)))


#: what opens files of a kind -> the only module that may
ONE_PLACE = {
    "safetensors": {"tensors.py"}, "pyarrow.parquet": {"schemas.py"},
    "yaml": {"yaml_files.py", "report/sections.py"},  # the report writes some
}  # fmt: skip


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{each.name}" for each in node.names)}
    return found | {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("library", ONE_PLACE)
def test_each_kind_of_file_is_opened_in_one_module(library: str) -> None:
    package = ROOT / "src/oneshui"
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if library in imported(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert users == ONE_PLACE[library]


def test_pictures_are_opened_in_one_module() -> None:
    package = ROOT / "src/oneshui"
    users = {str(path.relative_to(package)) for path in package.rglob("*.py") if "Image.open(" in path.read_text()}
    assert users == {"data/pictures.py"}


def test_the_loader_of_yaml_is_a_safe_one() -> None:
    assert issubclass(yaml_files._Loader, yaml.constructor.SafeConstructor)
    assert not issubclass(yaml_files._Loader, yaml.constructor.FullConstructor)


# ---- while files are read

_seen: list[str] = []
_watching = [False]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching[0] and event in ("pickle.find_class", "os.system", "os.exec", "subprocess.Popen"):
        _seen.append(f"{event} {arguments[:2]}")


sys.addaudithook(_hook)  # there is no way to take it away: it listens while it is told to


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def watched(call: Callable[[], Any]) -> list[str]:
    """Return what could have run code while ``call`` ran; it may refuse."""
    _seen.clear()
    _watching[0] = True
    try:
        call()
    except OneShuiError:
        pass
    finally:
        _watching[0] = False
    return list(_seen)


def saved(save: Callable[[Any], Any]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _objects(bomb: Bomb) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = bomb
    return array


def _in_parquet(whole: bytes, bomb: Bomb) -> bytes:
    """A whole table with pickles wherever pyarrow or pandas ever had a place for one."""
    evil = pickle.dumps(bomb)
    table = pq.read_table(io.BytesIO(whole)) if whole.startswith(b"PAR1") else pa.table({"path": ["a.png"]})
    told = {
        "index_columns": [{"kind": "serialized", "name": evil.hex()}], "column_indexes": [],
        "columns": [{"name": name, "pandas_type": "object", "numpy_type": "object", "metadata": {"pickle": evil.hex()}}
                    for name in table.column_names], "creator": {"library": "pyarrow", "version": "0.1"},
    }  # fmt: skip
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": evil}
    fields = [field.with_metadata(extension) for field in table.schema]
    metadata = {**(table.schema.metadata or {}), b"pandas": json.dumps(told).encode(), b"pickle": evil}
    return saved(lambda file: pq.write_table(table.cast(pa.schema(fields, metadata)), file))


PAYLOADS: dict[str, Callable[[bytes, Bomb], bytes]] = {
    "a pickle": lambda whole, bomb: pickle.dumps(bomb),
    "an old pickle": lambda whole, bomb: pickle.dumps(bomb, 0),
    "a zip of torch": lambda whole, bomb: saved(lambda file: torch.save({"model": bomb}, file)),
    "an old file of torch": lambda whole, bomb: saved(
        lambda file: torch.save({"model": bomb}, file, _use_new_zipfile_serialization=False)
    ),
    "an array of objects": lambda whole, bomb: saved(lambda file: np.save(file, _objects(bomb))),
    "an archive of objects": lambda whole, bomb: saved(lambda file: np.savez(file, a=_objects(bomb))),
    "a pickle of pandas": lambda whole, bomb: saved(lambda file: pd.Series([bomb]).to_pickle(file)),
    "a compressed pickle": lambda whole, bomb: gzip.compress(pickle.dumps(bomb)),
    "a table with pickles in its metadata": _in_parquet,
    "a table of pickles": lambda whole, bomb: saved(
        lambda file: pq.write_table(pa.table({"label": [pickle.dumps(bomb)]}), file)
    ),
    "YAML that makes objects": lambda whole, bomb: (
        f"x: !!python/object/apply:os.mkdir ['{bomb.mark}']\n".encode()
    ),
    "a whole file and a pickle": lambda whole, bomb: whole + pickle.dumps(bomb),
    "a pickle and a whole file": lambda whole, bomb: pickle.dumps(bomb) + whole,
}  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_reader_unpickles(tmp_path: Path, payload: str) -> None:
    bomb = Bomb(tmp_path / "ran")
    for kind, reader in READERS.items():
        path = tmp_path / reader.name
        path.write_bytes(PAYLOADS[payload](reader.whole(), bomb))
        assert watched(lambda reader=reader, path=path: reader.read(path)) == [], kind
        assert not bomb.mark.exists(), kind
        path.unlink()


@pytest.mark.parametrize("name", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_no_header_has_timm_open_a_pickle(tmp_path: Path, name: str) -> None:
    evil = tmp_path / "evil.pth"
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, evil)
    value: Any = str(evil) if name == "checkpoint_path" else {"file": str(evil), "url": ""}
    options = {**OPTIONS, name: value, "pretrained": True}
    path = tmp_path / "model.safetensors"
    path.write_bytes(our_header(READERS["model"].whole(), lambda ours: ours["model_spec"].update(options=options)))
    assert watched(lambda: READERS["model"].read(path)) == []
    assert not (tmp_path / "ran").exists()


def test_the_watch_sees_a_pickle(tmp_path: Path) -> None:
    evil = pickle.dumps(Bomb(tmp_path / "ran"))
    assert watched(lambda: pickle.loads(evil))
    assert (tmp_path / "ran").exists()
