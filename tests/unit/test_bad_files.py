"""Files of unknown hands as they must not be: each is one clear message, and never another error.

Annotation files, manifests and pictures: ``tests/unit/data/test_bad_inputs.py``.
"""

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save
from tests.readers import (
    CPU,
    OPTIONS,
    READERS,
    TASK,
    configuration,
    our_header,
    png,
    split_header,
    with_header,
)

from oneshui.data.text_tables import read_text
from oneshui.errors import ArtefactError, BundleError, CheckpointError, ConfigError, DataError, OneShuiError
from oneshui.models import ModelSpec, build_model, load_model, save_model
from oneshui.yaml_files import read_yaml

Change = Callable[[bytes], bytes]


# ---- ways to spoil a file


def given(data: bytes) -> Change:
    return lambda whole: data


def cut(size: int) -> Change:
    return lambda whole: whole[:size]


def tabled(change: Callable[[pa.Table], pa.Table]) -> Change:
    """Write a table anew with other columns or values, past the checks of whoever writes one."""

    def spoil(whole: bytes) -> bytes:
        file = io.BytesIO()
        pq.write_table(change(pq.read_table(io.BytesIO(whole))), file)
        return file.getvalue()

    return spoil


def column(name: str, values: Any, type_: Any = None) -> Change:
    """Replace the values of a column, of its old type unless another is given."""

    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        kind = type_ or table.schema.field(name).type
        field = pa.field(name, kind, nullable=True)
        rows = values * len(table) if len(values) == 1 else values
        return table.set_column(at, field, [pa.array(rows, kind, from_pandas=False)])

    return tabled(change)


def meta(**entries: Any) -> Change:
    """Replace entries of a table's metadata; None removes one."""

    def change(table: pa.Table) -> pa.Table:
        old = json.loads(table.schema.metadata[b"oneshui"])
        new = {key: value for key, value in {**old, **entries}.items() if value is not None}
        return table.replace_schema_metadata({b"oneshui": json.dumps(new)})

    return tabled(change)


def meta_text(text: bytes) -> Change:
    return tabled(lambda table: table.replace_schema_metadata({b"oneshui": text}))


def header(**entries: Any) -> Change:
    """Replace entries of our part of a safetensors header."""
    return lambda whole: our_header(whole, lambda ours: ours.update(entries))


def model_spec(**entries: Any) -> Change:
    return lambda whole: our_header(whole, lambda ours: ours["model_spec"].update(entries))


def without_spec(name: str) -> Change:
    return lambda whole: our_header(whole, lambda ours: ours["model_spec"].pop(name))


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Change:
    """Replace one tensor, None removes it; a name that is not there is added."""

    def spoil(whole: bytes) -> bytes:
        tensors = load(whole)
        found = change(tensors.pop(name, torch.zeros(1)))
        tensors |= {} if found is None else {name: found}
        return save(tensors, split_header(whole)[0].get("__metadata__"))

    return spoil


def entry(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the first tensor's entry in a safetensors header."""

    def spoil(whole: bytes) -> bytes:
        found, body = split_header(whole)
        change(next(value for name, value in found.items() if name != "__metadata__"))
        return with_header(found, body)

    return spoil


def raw_header(text: bytes) -> Change:
    return lambda whole: with_header(text, split_header(whole)[1])


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def npy_says(text: str) -> bytes:
    line = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(64)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.zeros((3, 3, 8, 6), dtype=np.uint8))
    return file.getvalue()


def shape(text: str) -> bytes:
    return npy_says(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {text}, }}")


def noted(text: bytes, length: int | None = None) -> Change:
    note = text + (len(text) if length is None else length).to_bytes(8, "little") + b"oneshui store"
    return lambda whole: npy(np.zeros((3, 3, 8, 6), dtype=np.uint8)) + note


def yaml(old: str, new: str) -> Change:
    """Replace text of a configuration."""

    def spoil(whole: bytes) -> bytes:
        assert old.encode() in whole
        return whole.replace(old.encode(), new.encode(), 1)

    return spoil


def more(text: str) -> Change:
    return lambda whole: whole + text.encode()


def lying_rows(whole: bytes) -> bytes:
    """A table of 50 million rows in some hundred bytes: all the same, which parquet writes once."""
    file = io.BytesIO()
    table = pq.read_table(io.BytesIO(whole))
    many = {name: table.column(name).take(pa.array([0])) for name in table.column_names}
    rows = pa.table(many, schema=table.schema)
    with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        block = pa.concat_tables([rows] * 1000).combine_chunks()
        writer.write_table(pa.concat_tables([block] * 500), row_group_size=2**20)
    return file.getvalue()


BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" if i else "a0: &a0 [x]\n" for i in range(12))
LONG = "x" * 100_000

#: kind of file -> what is wrong with it -> how it is made, and parts of the message
CASES: dict[str, dict[str, tuple[Change, list[str]]]] = {
    "configuration": {
        "nothing": (given(b""), ["it = null", "allowed: a mapping"]),
        "a list": (given(b"- 1\n"), ["allowed: a mapping"]),
        "an object by a tag": (
            more("x: !!python/object/apply:os.system [touch ran]\n"),
            ["the tag 'tag:yaml.org,2002:python/object/apply"],
        ),
        "a name by a tag": (more("x: !!python/name:os.system\n"), ["asks for an object, allowed: text, numbers"]),
        "a tag of its own": (more("x: !thing 3\n"), ["the tag '!thing' asks for an object"]),
        "a template": (more("__use_yte__: true\n"), ["as a template, with any Python code in it"]),
        "a billion laughs": (more(BOMB), ["more than 100000 values, with those that * repeats"]),
        "an alias of itself": (more("x: &x [*x]\n"), ["*x refers to nothing before it, or to itself"]),
        "an alias of nothing": (more("x: *y\n"), ["*y refers to nothing before it, or to itself"]),
        "nested deeply": (more("x: " + "[" * 5000 + "]" * 5000 + "\n"), ["more than 32 lists and mappings"]),
        "a key twice": (more("seeds: [1]\n"), ["config.yaml:", "the key 'seeds' stands there twice"]),
        "a key twice below": (
            yaml("      val: ", "      train: 0.1\n      val: "),
            ["the key 'train' stands there twice"],
        ),
        "a key twice in one line": (more("x: {a: 1, a: 2}\n"), ["the key 'a' stands there twice"]),
        "tabs": (more("x:\n\ty: 1\n"), ["not valid YAML"]),
        "Latin-1": (lambda whole: whole + b"# \xe9\n", ["not valid YAML in UTF-8"]),
        "zero bytes": (lambda whole: whole + bytes(9), ["not valid YAML"]),
        "a number of 5,000 digits": (more("x: " + "9" * 5000 + "\n"), ["not valid YAML", "digits"]),
        "a day that is none": (more("x: 2023-99-99\n"), ["not valid YAML", "month"]),
        "infinite": (yaml("lr: 0.", "lr: .inf # 0."), ["lr = inf, allowed: a finite number"]),
        "no number": (yaml("lr: 0.", "lr: .nan # 0."), ["lr = nan, allowed: a finite number"]),
        "infinite where all is allowed": (
            yaml("model_options: {", "model_options: {x: .inf, y: [.nan]}\n    #"),
            ["model_options/x = inf, allowed: a fi"],
        ),
        "a number as text": (yaml("epochs: ", 'epochs: "3" # '), ["epochs = '3', allowed: a whole number"]),
        "a pickle as initial weights": (
            yaml("init_weights: random", "init_weights: net.pth"),
            ["init_weights = 'net.pth'", "are pickles", "get the we"],
        ),
        "a model outside the results": (
            yaml("model: ", "model: ../../../x #"),
            ["model = '../../../x', allowed: the name of a model of timm"],
        ),
        "a model of the hub": (yaml("model: ", "model: hf-hub:x/y #"), ["allowed: the name of a model of timm"]),
        "half a gigabyte of zeros": (given(bytes(11_000_000)), ["it has 11000000 bytes, allowed: at most 10000000"]),
    },
    "model": {
        "nothing": (given(b""), ["is not a readable safetensors file (header length out of range)"]),
        "a header longer than the file": (given(b"\xff" * 64), ["header length out of range"]),
        "a header of 200 MB": (lambda whole: (2 * 10**8).to_bytes(8, "little") + whole[8:], ["header length out of"]),
        "a header that is no JSON": (raw_header(b"{" * 80), ["is not a readable safetensors file"]),
        "a header that is a list": (raw_header(b"[]"), ["its header is no mapping"]),
        "a header nested deeply": (raw_header(b"[" * 200_000), ["its JSON is nested too deeply"]),
        "a header with a key twice": (raw_header(b'{"a":1,"a":2}'), ["a key stands there twice"]),
        "metadata that are a list": (raw_header(b'{"__metadata__":[]}'), ["its metadata are no mapping"]),
        "metadata that are numbers": (raw_header(b'{"__metadata__":{"oneshui":1}}'), ["its metadata are no text"]),
        "our part is no JSON": (raw_header(b'{"__metadata__":{"oneshui":"{"}}'), ["is not a readable safetensors"]),
        "our part is a list": (raw_header(b'{"__metadata__":{"oneshui":"[]"}}'), ["its header has [] in place of ent"]),
        "our part is nested deeply": (
            raw_header(b'{"__metadata__":{"oneshui":"' + b"[" * 100_000 + b'"}}'),
            ["nested too deeply"],
        ),
        "of other hands": (lambda whole: save(load(whole)), ["was not written by oneshui"]),
        "offsets behind the end": (entry(lambda e: e.update(data_offsets=[0, 10**12])), ["is not a readable safete"]),
        "offsets that overlap": (entry(lambda e: e.update(data_offsets=[8, 24])), ["is not a readable safetensors"]),
        "offsets below zero": (entry(lambda e: e.update(data_offsets=[-8, 8])), ["is not a readable safetensors"]),
        "a shape that lies": (entry(lambda e: e.update(shape=[2**40, 2**40])), ["is not a readable safetensors"]),
        "a type that lies": (entry(lambda e: e.update(dtype="F16")), ["is not a readable safetensors file"]),
        "a type that nobody knows": (entry(lambda e: e.update(dtype="F1")), ["is not a readable safetensors file"]),
        "a hole before the first tensor": (lambda whole: whole + b"xxxx", ["is not a readable safetensors file"]),
        "a tensor too few": (tensor("fc.bias", lambda old: None), ["they lack 1 tensors, e.g. 'fc.bias'"]),
        "a tensor too many": (tensor("x", lambda old: old), ["they have 1 tensors that it has not, e.g. 'x'"]),
        "a name that is a path": (tensor("../../x", lambda old: old), ["has not, e.g. '../../x'"]),
        "another shape": (tensor("fc.bias", lambda old: torch.zeros(3)), ["'fc.bias' has the shape [3], needed: [2]"]),
        "whole numbers as weights": (tensor("fc.bias", lambda old: old.int()), ["'fc.bias' holds int32, needed: floa"]),
        "weights as counters": (
            tensor("bn1.num_batches_tracked", lambda old: old.float()),
            ["holds float32, needed: int64"],
        ),
        "complex numbers": (tensor("fc.bias", lambda old: old.to(torch.complex64)), ["holds complex64, needed"]),
        "no description": (header(model_spec=None), ["model_spec = None, allowed: a mapping"]),
        "a network too large for the machine": (
            model_spec(options={"channels": [2**20] * 4}),
            ["is far larger than the weights in the file"],
        ),
        "a network without end": (
            model_spec(options={**OPTIONS, "layers": [10**9, 1, 1, 1]}),
            ["is far larger than the weights in the file"],
        ),
        "a network that loads a pickle": (
            model_spec(options={**OPTIONS, "checkpoint_path": "evil.pth"}),
            ["leave out checkpoint_path"],
        ),
        "a network of the hub": (model_spec(architecture="hf-hub:x/y"), ["it knows no network of that name"]),
        "a network of a folder": (model_spec(architecture="local-dir:/tmp"), ["it knows no network of that name"]),
        "an architecture that is a number": (model_spec(architecture=3), ["architecture = 3, allowed: text"]),
        "an input of a million px": (model_spec(input_px=10**6), ["input_px = 1000000, allowed: 1 to 4096"]),
        "an input without px": (without_spec("input_px"), ["missing key input_px"]),
        "an entry that nobody knows": (model_spec(code="x"), ["unknown key code"]),
        "a deviation of zero": (
            model_spec(std=[0.0, 1.0, 1.0]),
            ["std = [0.0, 1.0, 1.0], allowed: finite numbers > 0"],
        ),
        "a mean that is no number": (
            model_spec(mean=[float("nan")] * 3),
            ["mean = [nan, nan, nan], allowed: a number or a list"],
        ),
        "two channels": (model_spec(mean=[0.5, 0.5]), ["one for each of red, green and blue"]),
        "a task that nobody knows": (
            model_spec(task={"kind": "ranking", "classes": ["a"]}),
            ["kind = 'ranking', allowed: classification or mul"],
        ),
        "classes that are numbers": (
            model_spec(task={"kind": "multilabel", "classes": [1, 2]}),
            ["classes = [1, 2], allowed: a list of diff"],
        ),
        "a class twice": (
            model_spec(task={"kind": "classification", "classes": ["a", "a"]}),
            ["allowed: a list of different names"],
        ),
        "no task": (without_spec("task"), ["task has None in place of entries"]),
        "a seed below zero": (header(seed=-1), ["seed = -1, allowed: a whole number >= 0"]),
        "a data set that is a list": (header(dataset=["x"]), ["dataset = ['x'], allowed: text"]),
        "photos of no size": (header(stored_px=[0, 8]), ["stored_px = [0, 8], allowed: two sizes in px"]),
    },
    "initial weights": {
        "cut off": (cut(500), ["are not a readable safetensors file", "are pickles"]),
        "a pickle of torch": (
            lambda whole: torched(load(whole)),
            ["are not a readable safetensors file", "are pickles"],
        ),
        "not finite": (
            tensor("fc.bias", lambda old: torch.full((2,), float("inf"))),
            ["1 tensors with numbers that are not finite"],
        ),
        "another shape": (tensor("conv1.0.weight", lambda old: torch.zeros(3)), ["Are ", "the weights of this model?"]),
        "a tensor too many": (tensor("../x", lambda old: old), ["has 1 tensors that 'test_resnet' has not"]),
        "whole numbers as weights": (
            tensor("conv1.0.weight", lambda old: old.int()),
            ["'conv1.0.weight' holds int32, needed: float32"],
        ),
    },
    "artefact": {
        "cut off": (cut(500), ["is not a readable safetensors file", "run precompute_artefact again"]),
        "not finite": (
            tensor("fc.bias", lambda old: torch.full((2,), float("nan"))),
            ["e.g. 'fc.bias'", "not finite"],
        ),
        "a tensor too few": (tensor("fc.bias", lambda old: None), ["the artefact has no 'fc.bias'"]),
        "another shape": (
            tensor("fc.bias", lambda old: torch.zeros(2**20)),
            ["'fc.bias' has the shape [1048576], need"],
        ),
        "whole numbers": (tensor("fc.bias", lambda old: old.int()), ["'fc.bias' holds int32, needed: float32"]),
        "what it keeps is a list": (header(artefact=[]), ["artefact = [], allowed: a mapping"]),
        "its judgement is text": (header(artefact={"health": {"blown_up": "no"}}), ["allowed: numbers by name"]),
    },
    "index": {
        "cut off": (cut(500), ["is not a readable parquet file"]),
        "of other hands": (tabled(lambda table: table.replace_schema_metadata({})), ["was not written by oneshui"]),
        "metadata that are no JSON": (meta_text(b"{"), ["is not a readable parquet file"]),
        "metadata that are a list": (meta_text(b"[]"), ["[] in place of entries"]),
        "metadata nested deeply": (meta_text(b"[" * 100_000), ["nested too deeply"]),
        "no classes": (meta(classes=None), ["need classes, but have"]),
        "classes that are one text": (meta(classes="ab"), ["classes = 'ab', allowed: a list of different names"]),
        "a task that nobody knows": (meta(task="ranking"), ["task = 'ranking', allowed: classification or multilabel"]),
        "a column of another type": (column("label", ["0"], pa.string()), ["wrong or missing: ['label']"]),
        "a column that is nested": (column("path", [["a"]], pa.list_(pa.string())), ["wrong or missing: ['path']"]),
        "a column of an extension type": (
            tabled(
                lambda t: t.set_column(
                    0, "image_id", pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 3, pa.binary(16)))
                )
            ),
            ["wrong or missing: ['image_id']"],
        ),
        "a column too many": (tabled(lambda t: t.append_column("x", t.column(0))), ["needs the columns"]),
        "a column twice": (tabled(lambda t: t.append_column("label", t.column("label"))), ["needs the columns"]),
        "an image twice": (column("image_id", [0, 1, 1]), ["some images have several rows (image_id 1)"]),
        "an image below zero": (column("image_id", [-1, 0, 1]), ["row 0: image_id is -1, allowed: >= 0"]),
        "a missing value": (column("identity", [0, None, 1]), ["row 1: column identity has no value"]),
        "a path of the machine": (
            column("path", ["/etc/passwd"]),
            ["row 0: image path '/etc/passwd' does not lie ins"],
        ),
        "a path upwards": (column("path", ["a.png", "b/../../c", "d"]), ["row 1: image path 'b/../../c' does not lie"]),
        "a path of 100,000 letters": (column("path", [LONG]), ["column path has text of more than 4096 bytes"]),
        "a label out of range": (column("label", [0, 2, 1]), ["row 1: the label is 2, allowed: 0 to 1"]),
        "a label below zero": (column("label", [0, 1, -1]), ["row 2: the label is -1, allowed: 0 to 1"]),
        "an image without width": (column("width", [0]), ["row 0: width is 0, allowed: >= 1"]),
        "rows that nobody wrote": (lying_rows, ["its header says", "more than", "bytes on disk can hold"]),
    },
    "splits": {
        "a role that nobody knows": (
            column("role", ["train", "all", "test"]),
            ["row 1: role is 'all', allowed: train"],
        ),
        "somebody in two roles": (
            column("role", ["train", "test", "test"]),
            ["identity 0 is in two of train, val, test"],
        ),
        "an image of nobody": (column("image_id", [0, 1, 7]), ["image_id 7 is not in index.parquet, which lists 3"]),
        "an image of somebody else": (column("identity", [0, 1, 1]), ["image_id 1 is of another person in index.p"]),
        "a rank below zero": (column("request_rank", [-1, 0, None]), ["row 0: request_rank is -1, allowed: >= 0"]),
        "not finite": (column("identity", [np.nan], pa.float64()), ["wrong or missing: ['identity']"]),
    },
    "request": {
        "no people": (tabled(lambda table: table[:0]), ["holds no photo: there is nobody to forget"]),
        "one person twice": (column("identity", [4, 4]), ["4 is there twice as identity: one photo of each person"]),
        "one rank twice": (column("request_rank", [1, 1]), ["some people have several rows (request_rank 1)"]),
        "a label out of range": (column("label", [0, 9]), ["row 1: the label is 9, allowed: 0 to 1"]),
        "labels as fractions": (column("label", [0.5], pa.float32()), ["wrong or missing: ['label']"]),
        "labels of another task": (meta(task="multilabel"), ["wrong or missing: ['label']"]),
        "other classes": (meta(classes=["old", "young"]), ["the model predicts classification with 2: young, old"]),
        "a photo of another size": (
            column("image", [png(), png(9, 6)]),
            ["row 1: the photo has 9 x 6 px (height x width)"],
        ),
        "a photo that is none": (column("image", [png(), b"no"]), ["row 1: the photo cannot be decoded"]),
        "a photo as text": (column("image", ["x"], pa.string()), ["wrong or missing: ['image']"]),
        "thousands of people who are one": (
            tabled(lambda table: pa.concat_tables([table] * 3000)),
            ["some people have several rows (request_rank 0, 1)"],
        ),
        "a number of people that is text": (meta(n="2"), ["n = '2', allowed: a whole number >= 0 or null"]),
    },
    "scores": {
        "one image twice": (column("image_id", [0, 0, 0]), ["some images have several rows (image_id 0)"]),
        "a view below zero": (column("view", [0, -1, 1]), ["row 1: view is -1, allowed: >= 0"]),
        "too many logits": (column("logits", [[1, 2, 3]] * 3), ["a number of logits other than the 2 classes"]),
        "no loss": (column("loss", [0.5, None, 1.0]), ["row 1: column loss has no value"]),
        "losses as text": (column("loss", ["0.5"], pa.string()), ["wrong or missing: ['loss']"]),
        "a model that is text": (meta(model="x"), ["model = 'x', allowed: a mapping"]),
    },
    "features": {"of several lengths": (column("features", [[1], [1, 2], [3]]), ["a number of logits other than"])},
    "metrics": {
        "no value": (column("metric", ["loss", None]), ["row 1: column metric has no value"]),
        "no people": (column("n", [0]), ["row 0: n is 0, allowed: >= 1"]),
    },
    "attack": {
        "infinite": (column("rmia", [0.0, np.inf, 1.0]), ["row 1: rmia is inf, allowed: a finite number"]),
        "no number": (column("loss_score", [np.nan]), ["row 0: loss_score is nan, allowed: a finite number"]),
    },
    "identities": {"a set that nobody knows": (column("set", ["x"]), ["row 0: set is 'x', allowed: forget, retain"])},
    "manifest as parquet": {
        "rows that nobody wrote": (lying_rows, ["its header says", "more than"]),
        "text of 200,000 letters": (column("identity", [2 * LONG]), ["column identity has text of more than 131072"]),
        "objects": (column("identity", [{"a": 1}], pa.struct({"a": pa.int8()})), ["neither text nor numbers"]),
    },
    "store": {
        "nothing": (given(b""), ["is not a readable image store"]),
        "objects": (given(npy(np.array([{}], dtype=object))), ["is not a readable image store", "Python objects"]),
        "an archive": (given(npz()), ["is not a readable image store"]),
        "fractions": (given(npy(np.zeros((3, 3, 8, 6)))), ["holds float64", "expected uint8 (N, 3, H, W)"]),
        "three dimensions": (given(npy(np.zeros((3, 8, 6), dtype=np.uint8))), ["holds uint8 (3, 8, 6), expected"]),
        "in Fortran order": (
            given(npy(np.asfortranarray(np.zeros((3, 3, 8, 6), dtype=np.uint8)))),
            ["in Fortran order, expected uint8"],
        ),
        "a shape that lies": (given(shape("(1000000, 3, 4096, 4096)")), ["is not a readable image store"]),
        "a shape without end": (given(shape("(4611686018427387904, 3, 8, 6)")), ["is not a readable image store"]),
        "a shape below zero": (given(shape("(-1, 3, 8, 6)")), ["is not a readable image store"]),
        "a header that is code": (given(npy_says("__import__('os').system('true')")), ["is not a readable image st"]),
        "a header of another version": (given(b"\x93NUMPY\x09\x00" + bytes(99)), ["is not a readable image store"]),
        "a note longer than any": (noted(b"{}", 2000), ["the length of its note is wrong", "Delete it"]),
        "a note that is a list": (noted(b"[]"), ["its note has [] in place of entries"]),
        "a note of numbers": (noted(b'{"pictures": 3}'), ["pictures = 3, allowed: text or null"]),
    },
}


def entry(**values: Any) -> Change:
    """Change entries of a JSON file; None takes one out."""

    def change(data: bytes) -> bytes:
        note = {**json.loads(data), **values}
        return json.dumps({name: value for name, value in note.items() if value is not None}).encode()

    return change


CASES |= {
    "bundle": {
        "no JSON": (given(b"people: {}"), ["cannot be read (", "Restore it from a copy"]),
        "nothing": (given(b""), ["cannot be read ("]),
        "a list": (given(b"[]"), ["[] in place of entries"]),
        "a key twice": (given(b'{"format": 1, "format": 1}'), ["a key stands there twice"]),
        "nested deeply": (given(b"[" * 100_000), ["cannot be read ("]),
        "a later version": (entry(format=2, people=1), ["newer version (format 2, oneshui 0.1.0)", "Install"]),
        "no people": (entry(people=None), ["has no people"]),
        "people who are names": (entry(people={"Ann": 1}), ["people who are no hashes with numbers"]),
        "people without numbers": (entry(people={"a" * 64: None}), ["people who are no hashes with numbers"]),
        "a file elsewhere": (entry(files={"model.safetensors": "", "../x": ""}), ["allowed: model.safetensors, and"]),
        "no weights": (entry(files={}), ["files = [], allowed: model.safetensors"]),
        "no kind of method": (entry(spec={}), ["no kind of method or size of photos"]),
        "a size that is none": (entry(stored_px=[8]), ["stored_px = [8], allowed: two sizes in px"]),
        "no architecture": (entry(model={"task": {}}), ["no architecture, input_px"]),
        "no classes": (
            entry(model={"architecture": "a", "input_px": 8, "task": {"kind": "classification"}}), ["no classes"],
        ),
        "a key that leads elsewhere": (entry(key="../../key"), ["a key that is no fingerprint of one"]),
    },
    "receipt": {
        "no JSON": (given(b"<html>"), ["is not a receipt (", "Name the .json file"]),
        "a list": (given(b"[]"), ["is not a receipt: it has [] in place of entries"]),
        "a later version": (entry(format=9), ["newer version (format 9, "]),
        "nobody": (entry(people=None), ["it has no people"]),
        "people who are numbers": (entry(people=[1]), ["it has no people"]),
        "a step that no float holds": (entry(moved=10**400), ["moved = 1", "allowed: a number"]),
        "a step that is text": (entry(moved="far"), ["moved = 'far', allowed: a number"]),
        "no outcome": (entry(outcome=None), ["it has no outcome"]),
    },
    "key": {
        "nothing": (given(b""), ["is not a key of bundles (it does not hold 64 hex digits)"]),
        "another text": (given(b"secret"), ["it does not hold 64 hex digits"]),
        "bytes": (given(bytes(range(128, 192))), ["it does not hold 64 hex digits"]),
        "half a key": (cut(32), ["it does not hold 64 hex digits"]),
    },
}  # fmt: skip
ERRORS = {"configuration": ConfigError, "initial weights": ConfigError, "model": CheckpointError,
          "artefact": ArtefactError, "bundle": BundleError, "receipt": BundleError, "key": BundleError}  # fmt: skip


def torched(tensors: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "what"), [(kind, what) for kind, cases in CASES.items() for what in cases], ids=lambda part: str(part)
)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, kind: str, what: str) -> None:
    change, parts = CASES[kind][what]
    reader = READERS[kind]
    path = tmp_path / reader.name
    path.write_bytes(change(reader.whole()))
    with pytest.raises(ERRORS.get(kind, DataError)) as raised:
        reader.read(path)
    message = str(raised.value)
    for part in parts:
        assert part in message
    assert path.name in message or kind == "artefact"  # a method that takes an artefact knows no file
    assert len(message) < 900
    assert message.endswith((".", "?")) or kind == "configuration"
    assert list(tmp_path.iterdir()) == [path]


def test_there_are_many_of_them() -> None:
    assert sum(map(len, CASES.values())) >= 130


@pytest.mark.parametrize("kind", READERS)
def test_a_whole_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / READERS[kind].name
    path.write_bytes(READERS[kind].whole())
    assert READERS[kind].read(path) is not None


RESUMES: dict[str, tuple[Change, str]] = {
    "cut off": (cut(900), "cannot be read"),
    "of another run": (header(fingerprint="g"), "belongs to another run"),
    "no state": (header(state={}), "its state has no epoch, best_epoch"),
    "an epoch that is text": (header(state={"epoch": "1", "best_epoch": 0}), "epoch = '1', allowed"),
    "an epoch of another training": (
        header(state={"epoch": 9, "best_epoch": 0, "history": []}), "its epochs are not those",
    ),
    "a history that is text": (
        header(state={"epoch": 2, "best_epoch": 0, "history": "ab"}), "its epochs are not those of this training",
    ),
    "a history without numbers": (
        header(state={"epoch": 2, "best_epoch": 0, "history": [{}, {}]}), "its history lacks numbers",
    ),
    "a tensor too few": (tensor("model/fc.bias", lambda old: None), "model: they lack 1 tensors"),
    "another shape": (tensor("best/fc.bias", lambda old: torch.zeros(7)), "best: 'fc.bias' has the shape [7]"),
    "not finite": (tensor("model/fc.bias", lambda old: old * float("nan")), "model: 'fc.bias' is not finite"),
    "moments of nothing": (tensor("optimiser/x/step", lambda old: old), "optimiser: 'x/step' is of no parameter"),
    "moments of another shape": (
        tensor("optimiser/fc.bias/momentum_buffer", lambda old: torch.zeros(7)), "'fc.bias/momentum_buffer' is of no",
    ),
    "other tensors": (tensor("code", lambda old: old), "is damaged (other tensors)"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "part"), RESUMES.values(), ids=RESUMES.keys())
def test_a_bad_resume_state_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Change, part: str
) -> None:
    reader = READERS["resume state"]
    path = tmp_path / reader.name
    path.write_bytes(change(reader.whole()))  # the first to ask for the whole file trains, and that is logged
    caplog.clear()
    assert reader.read(path) is None
    (said,) = caplog.messages
    assert part in said and said.endswith("starting from the beginning")


@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    reader = READERS[kind]
    path = tmp_path / reader.name
    os.mkfifo(path)
    if kind == "resume state":
        assert reader.read(path) is None
        return
    with pytest.raises(OneShuiError, match=r"regular file|lacks manifest\.csv|lacks m\.parquet"):
        reader.read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(OneShuiError, match=r"regular file|lacks manifest\.csv|lacks m\.parquet"):
        reader.read(path)


def test_annotation_text_is_a_regular_file() -> None:
    with pytest.raises(DataError, match=r"/dev/zero cannot be read \(it is not a regular file"):
        read_text(Path("/dev/zero"))


MEMORY = """
import resource, sys
from pathlib import Path
from oneshui.errors import OneShuiError
from tests.readers import READERS

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    try:
        READERS[path.parent.name].read(path)
    except OneShuiError:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{path.parent.name} {grown}")
"""
LIES = [
    ("model", "a network too large for the machine"), ("model", "a network without end"),
    ("index", "rows that nobody wrote"), ("store", "a shape that lies"), ("store", "a shape without end"),
    ("configuration", "a billion laughs"), ("configuration", "nested deeply"),
]  # fmt: skip


@pytest.mark.slow
def test_a_header_that_lies_takes_no_memory(tmp_path: Path) -> None:
    paths = []
    for number, (kind, what) in enumerate(LIES):
        path = tmp_path / str(number) / kind / READERS[kind].name
        path.parent.mkdir(parents=True)
        path.write_bytes(CASES[kind][what][0](READERS[kind].whole()))
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY, *paths], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)),
    )  # fmt: skip
    grown = [line.split() for line in done.stdout.splitlines()]
    assert [kind for kind, _ in grown] == [kind for kind, _ in LIES]
    assert max(int(size) for _, size in grown) < 400_000  # KiB


def test_a_network_with_large_buffers_is_loaded(tmp_path: Path) -> None:
    """The bound on what a header may ask for leaves room for what a network makes beside its weights."""

    spec = ModelSpec("test_vit", TASK, 160, (0.5,) * 3, (0.5,) * 3, {"depth": 1, "num_heads": 2})
    save_model(tmp_path / "m.safetensors", build_model(spec), spec, {})
    assert load_model(tmp_path / "m.safetensors", CPU).spec == spec


def test_a_configuration_with_aliases_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n1: 2\n")
    assert read_yaml(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}, 1: 2}


@pytest.mark.parametrize("bad", ["template", "tag"])
def test_the_command_looks_at_a_configuration_without_running_it(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "config.yaml"
    ran = tmp_path / "ran"
    line = f"? ?open({str(ran)!r}, 'w')\n: 1\n__use_yte__: true\n" if bad == "template" else (
        f"x: !!python/object/apply:os.mkdir [{str(ran)!r}]\n"
    )  # fmt: skip
    path.write_bytes(configuration() + line.encode())
    done = subprocess.run(
        [sys.executable, "-m", "oneshui", "check", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and not ran.exists() and not done.stdout
    assert done.stderr.startswith("oneshui: ") and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_the_command_names_the_code_that_a_configuration_runs(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = read_yaml(Path(__file__).parents[2] / "config/demo.yaml")
    config["methods"]["theirs"] = {"kind": "head:Ascent", "needs": "nothing", "params": {}}
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "oneshui", "check", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"{path}: nothing is wrong with it",
        "  methods/theirs: jobs run the Python code of head:Ascent, with your rights",
    ]
