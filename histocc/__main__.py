"""`histocc`, or `python -m histocc`: use a model that was trained."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence

from histocc.errors import did_you_mean

COMMANDS = {
    "predict": "code a table of descriptions",
    "evaluate": "judge a model on a table whose codes are known",
    "export": "write a model into a folder that works anywhere",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first of the arguments names; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C ends the command without a traceback while the libraries are read; `run_script` answers it later.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    listed = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    usage = f"usage: histocc COMMAND ...\n\n{listed}\n\nhistocc COMMAND --help says more.\n"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage, end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from histocc import __version__

        print(f"histocc {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        near = did_you_mean(arguments[0], COMMANDS)
        print(f"{usage}\nhistocc: error: there is no command {arguments[0]!r}{near}", file=sys.stderr)
        return 2
    # Each is loaded when it is asked for, so that a mistyped line is answered at once.
    return importlib.import_module(f"histocc.runs.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
