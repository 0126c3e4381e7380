"""The parser of a command line: flags in groups, other spellings of a flag, and what a mistyped one may have meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from typing import Any

from histocc import __version__
from histocc.errors import UsageError, close_names
from histocc.processes.distributed import environment_rank
from histocc.runs.ranges import RANGES

OTHER = "other"
_LOOKS_LIKE_A_FLAG = re.compile(r"--?[A-Za-z][^ ]*")
_HIDDEN_TOO = ("action", "choices", "nargs", "type")
# The flags of every command line that came with `ScriptParser`.
VERSION = "--version"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults and ranges; where there is no default, the help itself says what happens then."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # A switch is off where nobody turns it on.
        plain = action.default is None or action.default is False or action.default == []
        text = action.help if plain else super()._get_help_string(action)
        return f"{text} [{RANGES[action.dest]}]" if action.dest in RANGES else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))


class ScriptParser(argparse.ArgumentParser):
    """Parser whose help shows groups, units and defaults, and which speaks once, however many processes parse a line.

    Parameters
    ----------
    prog
        The name of the script or command.
    needs
        What a usage line must name, such as ``--save-dir FOLDER``; all other flags are ``[flags]`` there.
    groups
        Titles of groups of flags in the order of the help.
    examples
        Command lines for the end of the help.
    later
        Names of flags that came after others: an abbreviation that stood for one of the others still does.
    """

    def __init__(
        self,
        prog: str,
        *,
        description: str = "",
        needs: str = "",
        groups: Sequence[str] = (),
        examples: str = "",
        later: Collection[str] = (),
    ) -> None:
        super().__init__(
            prog,
            usage=" ".join(filter(None, ("%(prog)s", needs, "[flags]"))),
            description=description,
            epilog=f"example:\n{examples}" if examples else None,
            formatter_class=_Help,
            add_help=False,
        )
        self._later = {VERSION, *later}
        self._groups = {title: self.add_argument_group(title) for title in (*groups, OTHER)}
        # Flags of which the help says nothing.
        self._hidden = self.add_argument_group()
        # Another spelling -> the flag of which it is one.
        self._spelling_of: dict[str, str] = {}
        other = self._groups[OTHER]
        other.add_argument("-h", "--help", action="help", help="show this help and exit")
        other.add_argument(
            VERSION, action="version", version=f"histocc {__version__}", help="show the version and exit"
        )

    def flag(self, group: str, *names: str, aliases: Sequence[str] = (), **options: Any) -> None:
        """Add a flag to a group.

        Parameters
        ----------
        group
            The title of the group, which is made if need be.
        names, options
            As for `argparse.ArgumentParser.add_argument`.
        aliases
            Other spellings, as they are called elsewhere or were before, which the help does not show.
        """
        if group not in self._groups:
            self._groups[group] = self.add_argument_group(group)
        action = self._groups[group].add_argument(*names, **options)
        alike = {name: options[name] for name in _HIDDEN_TOO if name in options}
        for alias in aliases:
            self._spelling_of[alias] = names[0]
            self._hidden.add_argument(
                alias, dest=action.dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **alike
            )

    def add_opposites(self) -> None:
        """Add a flag that takes each switch back, such as ``--no-use-amp``; the help does not show them."""
        for flag, action in list(self._option_string_actions.items()):
            if not isinstance(action.const, bool) or not flag.startswith("--"):
                continue
            opposite = f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"
            if opposite not in self._option_string_actions:
                self._hidden.add_argument(
                    opposite,
                    dest=action.dest,
                    action="store_const",
                    const=not action.const,
                    default=argparse.SUPPRESS,
                    help=argparse.SUPPRESS,
                )
                self._later.add(opposite)

    def action_of(self, flag: str) -> argparse.Action | None:
        """What a flag does, given its name or another spelling; None if there is none of this name."""
        return self._option_string_actions.get(self._spelling_of.get(flag, flag))

    def settings(self) -> list[str]:
        """The names under which values of flags stand, in settings of a run."""
        return list(dict.fromkeys(action.dest for action in self._option_string_actions.values()))

    def given(self, argv: Sequence[str] | None) -> set[str]:
        """The settings that a command line names, also where they have their defaults."""
        missing = object()
        before = argparse.Namespace(**dict.fromkeys(self.settings(), missing))
        return {name for name, value in vars(self.parse_args(argv, before)).items() if value is not missing}

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse.ArgumentParser` does; words that belong to no flag come with what they often are."""
        parsed, stray = self.parse_known_args(args, namespace)
        if stray:
            words = not any(word.startswith("-") for word in stray)
            self.error(f"unrecognized arguments: {' '.join(stray)}{' (names with blanks need quotes)' * words}")
        return parsed

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """As `argparse.ArgumentParser` does; mistyped flags come first, before flags that are missing for it."""
        arguments = sys.argv[1:] if args is None else list(args)
        unknown = self._unknown(arguments)
        if unknown:
            named = " ".join(f"{flag}{self._meant(flag)}" for flag in unknown)
            self.error(f"unrecognized arguments: {named}")
        return super().parse_known_args(arguments, namespace)

    def _unknown(self, arguments: Sequence[str]) -> list[str]:
        """What looks like a flag and is none."""
        flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
        found = []
        for argument in flags:
            name = argument.partition("=")[0]
            if not _LOOKS_LIKE_A_FLAG.fullmatch(name):
                continue
            known = self._option_string_actions
            if name.startswith("--"):
                there = any(flag.startswith(name) for flag in known)
            else:
                there = name in known or name[:2] in known
            if not there:
                found.append(name)
        return found

    def _meant(self, flag: str) -> str:
        """A note on flags that are spelt nearly like this one."""
        names = {name.lstrip("-"): self._spelling_of.get(name, name) for name in self._option_string_actions}
        close = close_names(flag.lstrip("-").replace("_", "-"), names)
        return f" (did you mean {' or '.join(dict.fromkeys(names[name] for name in close))}?)" if close else ""

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        # What an abbreviation may stand for, as (action, flag, ...).
        found = super()._get_option_tuples(option_string)
        return [each for each in found if each[1] not in self._later] or found

    def error(self, message: str) -> Any:
        """Print usage and message on the main process; end with exit code 2 on all."""
        try:
            speaks = environment_rank()[0] == 0
        except UsageError:
            # Which process this is will be asked, and complained about, once the line can be parsed.
            speaks = True
        if speaks:
            super().error(message)
        sys.exit(2)
