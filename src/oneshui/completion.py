"""Shell completion of the command ``oneshui``, made from its parser: one function of bash, which zsh runs, too."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

SHELLS = ("bash", "zsh")
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """\
# completion of oneshui: put the output of `oneshui completion {shell}` where your shell reads it, e.g. in ~/.{shell}rc
{zsh}_oneshui() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then words={commands}
    else case "${{COMP_WORDS[1]}}:$before" in
{values}
    *) case "${{COMP_WORDS[1]}}" in
{options}
        esac ;;
    esac; fi
    COMPREPLY=()
    case "$words" in
    "") ;;
    FILE) COMPREPLY=($(compgen -f -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$word"))
       [ "${{word#-}}" != "$word" ] || [ "$COMP_CWORD" -eq 1 ] || COMPREPLY+=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _oneshui oneshui
"""


def completion_of(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script that completes the commands of a parser, their options and what these take.

    Args:
        parser: with commands.
        shell: one of ``SHELLS``.
    """
    commands = commands_of(parser)
    values, options = [], []
    for name, command in commands.items():
        for action in _options(command):
            flags = "|".join(f"{name}:{flag}" for flag in action.option_strings)
            if action.nargs != 0:
                values.append(f"    {flags}) words={shlex.quote(_values(action))} ;;")
        flags = " ".join(flag for action in _options(command) for flag in action.option_strings)
        places = " ".join(str(c) for action in command._get_positional_actions() for c in action.choices or ())
        options.append(f"        {name}) words={shlex.quote(f'{places} {flags}'.strip())} ;;")
    return _SCRIPT.format(
        shell=shell, zsh=_ZSH if shell == "zsh" else "", commands=shlex.quote(" ".join(commands)),
        values="\n".join(values), options="\n".join(options),
    )  # fmt: skip


def _values(action: argparse.Action) -> str:
    """Return what an option takes: one of its choices, a file, or what nobody can guess."""
    return " ".join(map(str, action.choices)) if action.choices else "FILE" if action.type is Path else ""


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    (action,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return {name: found for name, found in action.choices.items() if re.fullmatch("[a-z]+", name)}


def _options(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in command._actions if action.option_strings)
