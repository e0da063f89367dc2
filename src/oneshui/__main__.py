"""The command ``oneshui``: bundles and requests, and a look at a configuration. Everything else is the workflow's."""

import argparse
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneshui import __version__
from oneshui.errors import BundleError, ConfigError, OneShuiError
from oneshui.log import logger

#: exit codes; 2 is the command line's, from argparse
DONE, REFUSED, NOT_FORGOTTEN, NOT_VERIFIED = 0, 1, 3, 4

_CODES = """
exit codes:
  0  done
  1  refused, with one message; nothing was written
  2  the command line is wrong
  3  forget: a new bundle was written, but not everybody is forgotten, or the model is destroyed
  4  verify: the receipt does not fit the bundles

More: docs/bundles.md
"""

_MAIN = """Make image models forget people, each from one photo, after the training data is gone.

  oneshui pack --configfile config/demo.yaml --dataset demo --seed 0 --method ssd --out bundle
  oneshui show bundle
  oneshui forget bundle --photo alice=alice.jpg --out bundle2
  oneshui verify bundle2-receipt.json bundle bundle2
"""

_PACK = """Make a bundle: a model, what its unlearning method keeps, and keyed hashes of the people it was trained on.

Of a run of the workflow, in the folder with results/:

  oneshui pack --configfile config/demo.yaml --dataset demo --seed 0 -n 5 --method metaunlearn --out bundle

Of a timm model of your own, with a manifest of the images that it was trained on (photos/manifest.csv with the columns
path, identity and label). methods.yaml: methods: {ssd: {kind: ssd, params: {...}}}

  oneshui pack --weights birds.safetensors --model resnet18.a1_in1k --images photos --label-column species \\
      --configfile methods.yaml --method ssd --out bundle

The key, oneshui-XXXXXXXX.key, goes beside the bundle. Keep it elsewhere, with a copy: no request can be served without.
"""

_SHOW = """Say what a bundle holds and can do, after its files were compared with their hashes.

  oneshui show bundle
  oneshui show bundle --person alice --key safe/oneshui-1f2e3d4c.key
"""

_FORGET = """Forget people: write a new bundle without what the old one keeps of them, and a receipt.

  oneshui forget bundle --photo alice=alice.jpg --out bundle2
  oneshui forget bundle --photo alice=alice.jpg --photo "Bob Lee"=bob.png --label alice=Smiling,Young --out bundle2
  oneshui forget bundle --photo alice=alice.jpg --dry-run

Names are those of the training data. Photos must be upright, cropped and aligned like the training images; they are not
kept. Without a label the model's own answer is used. The old bundle stays: delete it when the receipt is verified.
"""

_VERIFY = """Compare a receipt with the bundles before and after the request. With the key, seals are looked at, too.

  oneshui verify bundle2-receipt.json bundle bundle2
"""

_CHECK = """Say what is wrong with a configuration, and which code of other people it would run. Nothing in it is run.

  oneshui check config.yaml

Do this before Snakemake reads a file of somebody you do not know: Snakemake runs one with the key __use_yte__ as a
template, with any Python code in it.
"""

_COMPLETION = """Print the completion of this command for a shell.

  source <(oneshui completion bash)                     # for this shell
  oneshui completion bash >> ~/.bash_completion         # for every shell from now on
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda *_: sys.exit(1))  # so that what is unfinished is cleared away
    try:
        return int(args.run(args))
    except OneShuiError as error:
        return _refused(str(error))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except OSError as error:
        what = f"{error.filename} cannot be used ({error.strerror})" if error.filename else str(error)
        return _refused(f"{what}. Name another file or folder.")
    except KeyboardInterrupt:
        return _refused("interrupted. Nothing was written.")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="oneshui", description=_MAIN, epilog=_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--version", action="version", version=f"oneshui {__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND", dest="command", title="commands")

    def command(name: str, short: str, text: str, run: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=short, description=text, epilog=_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.set_defaults(run=run)
        return added

    _pack_options(command("pack", "make a bundle of a model", _PACK, _pack))
    shown = command("show", "say what a bundle holds", _SHOW, _show)
    shown.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    shown.add_argument("--person", metavar="NAME", help="say what it keeps of this person")
    _key_and_json(shown)
    _forget_options(command("forget", "forget people", _FORGET, _forget))
    verified = command("verify", "check a receipt", _VERIFY, _verify)
    for name, what in (("receipt", "the .json file"), ("old", "the bundle before"), ("new", "the bundle after")):
        verified.add_argument(name, type=Path, metavar=name.upper(), help=what)
    _key_and_json(verified)
    command("check", "look at a configuration", _CHECK, _check).add_argument(
        "config", type=Path, metavar="CONFIG", help="the file"
    )
    completion = command(
        "completion", "shell completion", _COMPLETION, lambda args: print(completion_of(made, args.shell)) or DONE
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="%(choices)s")
    return made


def completion_of(made: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that completes the commands of a parser, their options and what these take."""
    import shtab  # only here: the other commands start without it

    for command in commands_of(made).values():
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(made, shell))


def commands_of(made: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    (action,) = (each for each in made._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def _key_and_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--key", type=Path, metavar="FILE", help="the bundle's key (default: the one beside it)")
    command.add_argument("--json", action="store_true", help="print JSON")


def _machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_count, default=1, metavar="N", help="of the CPU (default: %(default)s)")
    command.add_argument("--cpu", action="store_true", help="leave a GPU alone")


def _pack_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", type=Path, required=True, metavar="BUNDLE", help="folder to make")
    add("--configfile", type=Path, required=True, metavar="FILE", help="configuration with the method")
    add("--method", required=True, metavar="NAME", help="its name there")
    _key_and_json(command)
    run = command.add_argument_group("a run of the workflow").add_argument
    run("--dataset", metavar="NAME", help="its name in the configuration")
    run("--seed", type=int, metavar="N", help="of the run (default: the only one)")
    run(
        "-n",
        type=int,
        metavar="N",
        help="request size that hyper-parameters and artefact are for (default: the only one)",
    )
    run("--directory", type=Path, default=Path("."), metavar="FOLDER", help="with results/ (default: here)")
    own = command.add_argument_group("a model of your own").add_argument
    own("--weights", type=Path, metavar="FILE", help="its state_dict, in safetensors")
    own("--model", metavar="NAME", help="timm's name of the network")
    own("--model-options", metavar="JSON", help="keyword arguments of timm.create_model, e.g. '{\"depth\": 6}'")
    own("--images", type=Path, metavar="FOLDER", help="training images with their manifest")
    own("--manifest", metavar="FILE", help="in that folder, .csv or .parquet (default: manifest.csv)")
    own("--path-column", metavar="NAME", help="of the manifest (default: path)")
    own("--identity-column", metavar="NAME", help="of the manifest: who may ask (default: identity)")
    own("--label-column", metavar="NAME", help="of the manifest: one class an image (default: label)")
    own("--label-columns", metavar="A,B,...", help="0/1 columns of attributes; 'rest' for all others")
    own("--classes", metavar="A,B,...", help="in the order of the classifier (default: alphabetical)")
    own("--validation", type=Path, metavar="FOLDER", help="images of other people, with such a manifest (MetaUnlearn)")
    own("--input-px", type=_count, metavar="N", help="side of the network's input (default: timm's)")
    own("--mean", type=_channels, metavar="X[,X,X]", help="of channel values in [0, 1] (default: timm's)")
    own("--std", type=_channels, metavar="X[,X,X]", help="likewise (default: timm's)")
    _machine(command)


def _forget_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    add("--photo", dest="photos", action="append", required=True, type=_pair, metavar="NAME=FILE",
        help="somebody who asks, with one photo; may be given again")  # fmt: skip
    add("--label", dest="labels", action="append", default=[], type=_label, metavar="NAME=LABEL",
        help="class of the photo, or attributes, A,B; nothing: it has none (default: the model's answer)")  # fmt: skip
    add("--out", type=Path, metavar="NEW", help="folder of the new bundle")
    add("--receipt", type=Path, metavar="FILE", help="(default: NEW-receipt.json; its page, .html, goes beside it)")
    add("--allow-unknown", action="store_true", help="serve people whom the bundle does not know, if the method can")
    add("--dry-run", action="store_true", help="look at everything, write nothing")
    _key_and_json(command)
    _machine(command)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")  # an attribute that nothing has is a label, too
    return (name, value) if name and equals and not value else _pair(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def _channels(text: str) -> float | tuple[float, ...]:
    try:
        values = tuple(map(float, text.split(",")))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, or three with commas between them")
    return values[0] if len(values) == 1 else values


# ---- the commands. What they need is imported here, so that help and completion are quick


def _pack(args: argparse.Namespace) -> int:
    from oneshui.startup import quick_imports

    with quick_imports():
        from oneshui.bundles.pack import method_of, pack, pack_model
    of_run = {"--dataset": args.dataset, "--seed": args.seed, "-n": args.n}
    own = {"--weights": args.weights, "--model": args.model, "--images": args.images}
    given = [name for name, value in {**of_run, **own}.items() if value is not None]
    if args.dataset is not None and not any(name in own for name in given):
        made = pack(
            args.out, configfile=args.configfile, dataset=args.dataset, method=args.method, seed=args.seed, n=args.n,
            folder=args.directory, key=args.key,
        )  # fmt: skip
    elif all(value is not None for value in own.values()) and not any(name in of_run for name in given):
        made = pack_model(
            args.out, weights=args.weights, model=args.model, images=args.images,
            method=method_of(args.configfile, args.method), model_options=_mapping(args.model_options),
            input_px=args.input_px, mean=args.mean, std=args.std, options=_manifest_options(args),
            validation=args.validation, key=args.key, cpu=args.cpu, threads=args.threads,
        )  # fmt: skip
    else:
        raise BundleError(
            f"it is not clear what to pack (given: {', '.join(given) or 'nothing'}). A run of the workflow needs "
            "--dataset; a model of your own needs --weights, --model and --images. Name the options of one of the two."
        )
    return _said(args.json, _describe(made.folder, args.key))


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(
            f"--model-options {text!r} is no JSON ({error}). Write it like '{{\"depth\": 6}}'."
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"--model-options {text!r} is no mapping. Write it like '{{\"depth\": 6}}'.")
    return found


def _manifest_options(args: argparse.Namespace) -> dict[str, Any]:
    names = {"file": args.manifest, "path_column": args.path_column, "identity_column": args.identity_column,
             "label_column": args.label_column}  # fmt: skip
    lists = {"classes": args.classes, "label_columns": args.label_columns}
    found: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
    for name, text in lists.items():
        if text is not None:
            items = [each.strip() for each in text.split(",")]
            found[name] = text if (name, text) == ("label_columns", "rest") else items
    return found


def _show(args: argparse.Namespace) -> int:
    return _said(args.json, _describe(args.bundle, args.key, args.person))


def _describe(bundle: Path, key: Path | None, person: str | None = None) -> dict[str, Any]:
    from oneshui.bundles.show import show

    return show(bundle, person=person, key=key)


def _said(as_json: bool, found: Mapping[str, Any]) -> int:
    print(json.dumps(found, indent=1) if as_json else _text_of(found))
    return DONE


def _text_of(found: Mapping[str, Any]) -> str:
    """Return what ``show`` found, for people."""
    model, (least, most) = found["model"], found["kept"]
    classes, (height, width) = model["task"]["classes"], found["stored_px"]
    some = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
    kept = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    params = ", ".join(f"{name} {value}" for name, value in found["spec"].items())
    unknown = "refused, for" if found["needs_to_know"] else "served with --allow-unknown:"
    lines = [
        f"{found['folder']}: {model['architecture']}, {model['task']['kind']} with {len(classes)} "
        f"{'classes' if model['task']['kind'] == 'classification' else 'attributes'} ({some})",
        f"photos: decoded to {height} x {width} px (height x width), {model['input_px']} px into the network",
        *textwrap.wrap(f"method: {found['method']} ({params})", 100, subsequent_indent="  ", break_long_words=False),
        f"made from: {', '.join(f'{name} {value}' for name, value in found['source'].items())}",
        f"people: {found['known']} can ask to be forgotten; of each alone it keeps {kept} numbers",
        f"somebody unknown: {unknown} {found['method']} {found['for_unknown']}",
        f"of all together it keeps: {found['stays'] or 'nothing but the weights'}",
        f"requests served so far: {found['served']}",
        f"files: as their hashes say; seal: {'whole' if found['sealed'] else 'not looked at, for the key is not here'}",
        f"key: oneshui-{found['key']}.key, unless --key named another file",
    ]  # fmt: skip
    who = found.get("person")
    if who:
        what = f"known, {who['numbers']:,} numbers are kept of them alone" if who["known"] else "not known"
        lines.append(f"this person: {what} ({who['hash']})")
    return "\n".join(lines)


def _forget(args: argparse.Namespace) -> int:
    from oneshui.bundles.forget import forget

    labels: dict[str, str] = {}
    for name, label in args.labels:
        if name in labels:
            raise BundleError(f"{name!r} has two labels, {labels[name]!r} and {label!r}. Give one.")
        labels[name] = label
    receipt = forget(
        args.bundle, args.photos, out=args.out, labels=labels, key=args.key, receipt=args.receipt,
        allow_unknown=args.allow_unknown, dry_run=args.dry_run, cpu=args.cpu, threads=args.threads,
    )  # fmt: skip
    if args.json:
        print(json.dumps(receipt, indent=1))
    else:
        print("\n".join(_lines_of(receipt, [name for name, _ in args.photos], args)))
    return DONE if receipt["outcome"] in ("served", "dry run") else NOT_FORGOTTEN


def _lines_of(receipt: Mapping[str, Any], names: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Return what a request did, for people."""
    lines = []
    for name, each in zip(names, receipt["people"], strict=True):
        label = each["label"] if isinstance(each["label"], str) else ", ".join(each["label"]) or "no attribute"
        line = f"  {name}: {'known' if each['known'] else 'NOT KNOWN'}, label {label} ({each['label_from']}); "
        sure = f"{100 * each['before']['sure_of_label']:.1f} %"
        if "after" in each:
            line += f"the model was {sure} sure of it before, {100 * each['after']['sure_of_label']:.1f} % now; "
            line += f"{each['numbers_removed']:,} numbers removed"
        else:
            line += f"the model is {sure} sure of it"
        lines.append(line)
    if receipt["outcome"] == "dry run":
        return [f"dry run with {receipt['method']}: nothing was written", *lines]
    told = args.receipt or args.out.with_name(f"{args.out.name}-receipt.json")
    return [
        f"{args.out}: {receipt['method']} in {receipt['seconds']:.1f} s, isolated by {receipt['isolation']}", *lines,
        f"  weights moved by {receipt['moved']:.3g} of their size",
        f"  people: {receipt['people_before']} before, {receipt['people_after']} now"
        + (f"; {lost} did not ask, but cannot be served any more" if (lost := receipt["no_longer_served"]) else ""),
        f"  still there: {receipt['stays'] or 'nothing but the weights'}",
        f"outcome: {receipt['outcome']}. {receipt['meaning']}",
        f"receipt: {told}, {told.with_suffix('.html')}",
        f"{args.bundle} still knows them. Delete it once the receipt is verified: "
        f"oneshui verify {told} {args.bundle} {args.out}",
    ]  # fmt: skip


def _verify(args: argparse.Namespace) -> int:
    from oneshui.bundles.receipt import SEALED, verify

    checks = verify(args.receipt, args.old, args.new, key=args.key)
    whole, seals = all(each["holds"] for each in checks), any(each["check"] == SEALED for each in checks)
    if args.json:
        print(json.dumps({"holds": whole, "seals": seals, "checks": checks}, indent=1))
    else:
        print("\n".join(f"{'ok ' if each['holds'] else 'NO '} {each['check']}" for each in checks))
        print(f"{args.receipt}: {'true of these bundles' if whole else 'NOT true of these bundles'}")
        if not seals:
            print(
                "Seals were not looked at, for the key is not here: anybody could have written it. Name it: --key FILE"
            )
    return DONE if whole else NOT_VERIFIED


def _check(args: argparse.Namespace) -> int:
    from oneshui.planning.checks import check
    from oneshui.yaml_files import read_yaml

    config = read_yaml(args.config)
    check(config, str(args.config))
    code = [
        f"  methods/{name}: jobs run the Python code of {entry['kind']}, with your rights"
        for name, entry in config["methods"].items()
        if ":" in entry["kind"]
    ]
    print("\n".join([f"{args.config}: nothing is wrong with it", *code]))
    return DONE


def _refused(message: str) -> int:
    print(f"oneshui: {message}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
