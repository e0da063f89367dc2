"""After the discard line: a request is served in a process that cannot open the training data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oneshui.isolation import run_isolated
from oneshui.methods import METHODS
from oneshui.runs import Model, Run


def unlearn(
    model_path: Path, request_path: Path, artefact_path: Path | None, output_path: Path, *, run: Run, model: Model,
    spec: Mapping[str, Any], gpus: int, threads: int, withheld: Sequence[str | Path],
) -> None:  # fmt: skip
    """Unlearn the people of a request with one photo of each.

    Args:
        model_path: the start model.
        request_path: the photos.
        artefact_path: what the method kept, or None if it keeps nothing.
        output_path: the unlearned model.
        run: dataset, request size and seed.
        model: the model that is made.
        spec: ``kind`` and hyper-parameters of the method.
        gpus: GPUs that the job was given.
        threads: of the CPU.
        withheld: files and folders of the training data; the job fails if it could open one.

    Raises:
        IsolationError: it could.
        OneShuiError: what ``oneshui.stages.serve_request`` raises.
    """
    inputs = [path for path in (model_path, request_path, artefact_path) if path]
    own = [] if spec["kind"] in METHODS else [str(spec["kind"]).partition(":")[0].partition(".")[0]]
    arguments = {
        "model_path": str(model_path), "request_path": str(request_path),
        "artefact_path": str(artefact_path) if artefact_path else None,
        "run": asdict(run), "model": str(model), "spec": dict(spec), "gpus": gpus, "threads": threads,
    }  # fmt: skip
    run_isolated(
        "oneshui.stages.serve_request:serve_request", arguments, readable=inputs, output=output_path, withheld=withheld,
        modules=own,
    )  # fmt: skip
