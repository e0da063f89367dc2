"""The command ``oneshui``: serving a real request, looking at a configuration. Everything else is the workflow's."""

import argparse
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneshui.config import check_config
from oneshui.errors import OneShuiError
from oneshui.log import logger
from oneshui.planning.checks import check, check_methods
from oneshui.stages.forget import forget
from oneshui.yaml_files import read_yaml

_FORGET = """Make a model forget people, each from one photo.

    oneshui forget results/models/demo/seed0/pretrain.safetensors me.jpg --label d --config config/demo.yaml \\
        --method metaunlearn --artefact results/artefacts/demo/n5/seed0/pretrain/metaunlearn.safetensors \\
        --output forgotten.safetensors

The training data is not needed: the process that unlearns can open the model, the artefact and the photo, nothing else.
The photo must be cropped and aligned as the training images were; it is not kept.
"""

_CHECK = """Say what is wrong with a configuration, and which code of other people it would run. Nothing in it is run.

Do this before Snakemake reads a file of somebody you do not know: Snakemake runs one with the key __use_yte__ as a
template, with any Python code in it.
"""


def _code_of(config: Mapping[str, Any]) -> list[str]:
    """Return a line for each method that is not ours."""
    return [
        f"  methods/{name}: jobs run the Python code of {entry['kind']}, with your rights"
        for name, entry in config["methods"].items()
        if ":" in entry["kind"]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="oneshui", description="One-shot unlearning of personal identities.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    raw = argparse.RawDescriptionHelpFormatter
    asked = commands.add_parser("forget", help="serve a request", description=_FORGET, formatter_class=raw)
    asked.add_argument("model", type=Path, help="a model that the workflow trained")
    asked.add_argument("photos", type=Path, nargs="+", metavar="photo", help="one photo of each person")
    what = "of each photo, in their order: its class, or the person's attributes, 'Smiling,Young'"
    asked.add_argument("--label", dest="labels", action="append", required=True, metavar="LABEL", help=what)
    asked.add_argument("--config", type=Path, required=True, help="configuration with the method's hyper-parameters")
    asked.add_argument("--method", default="metaunlearn", help="name in the configuration (default: %(default)s)")
    asked.add_argument("--artefact", type=Path, help="what the method kept of the training data, if it keeps anything")
    asked.add_argument("--output", type=Path, required=True, help="the unlearned model, safetensors")
    asked.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    asked.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    checked = commands.add_parser("check", help="look at a configuration", description=_CHECK, formatter_class=raw)
    checked.add_argument("config", type=Path, help="the file")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that photos are cleared away
    try:
        config = read_yaml(args.config)
        if args.command == "check":
            check(config, str(args.config))
            print("\n".join([f"{args.config}: nothing is wrong with it", *_code_of(config)]))
            return 0
        check_config(config, str(args.config))
        check_methods(config, str(args.config))
        header = forget(
            args.model, args.photos, args.artefact, args.output, config=config, method=args.method,
            labels=args.labels, gpus=0 if args.cpu else 1, threads=args.threads,
        )  # fmt: skip
    except OneShuiError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"{error.filename} cannot be used ({error.strerror}). Name another file or folder.")
    print(f"{args.output}: {args.method} in {header['seconds']:.1f} s, isolated by {header['isolation']}")
    print("\n".join(f"  {name}: {value:.4g}" for name, value in header["health"].items()))
    return 0


def _refused(message: str) -> int:
    print(f"oneshui: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
