"""The command ``fastconv`` and its subcommands, from `demo` and `train` to `verify-run`.

What goes wrong by the user's doing, a missing file, a damaged one, an unknown option, is one line
on stderr, with a table below where there is one, and exit code 2; ``FASTCONV_DEBUG=1`` shows the
traceback instead.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import IO, Any, NoReturn

from fastconv.serving.errors import SessionError
from fastconv.version import __version__

# fastconv.commands.<name>, - as _: SUMMARY, EXAMPLES, add_arguments, run
COMMANDS = (
    "demo", "train", "evaluate", "export", "predict", "serve", "doctor", "deploy", "info", "bench",
    "verify-run",
)  # fmt: skip
FAILED, WRONG, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141  # exit codes

EPILOG = """examples:
  fastconv demo                          train, export, prove and predict, on real digits
  fastconv train photos --out shapes     train on a folder of pictures, a folder per class
  fastconv evaluate model.onnx photos    what a network knows of its classes
  fastconv export model.fc model.onnx    a saved model as ONNX, proved
  fastconv info                          what this build runs on
  fastconv info model.onnx               what a file holds
  fastconv predict model.onnx digit.png  ask an exported network
  fastconv serve model.onnx              the same over HTTP, with a page to try it
  fastconv doctor --device cuda          does the GPU work, and if not, why
  fastconv deploy model.onnx --triton DIR   files for NVIDIA Triton
  fastconv bench resnet20                time every layer, beside the limits of this machine
  fastconv verify-run train.py           repeat the first steps of a script, compare the bits
"""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            known = [word for action in self._actions for word in action.option_strings]
            named = rest[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_meant(named, known)}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            name = action.metavar or "/".join(action.option_strings)
            words = f"{name}: invalid choice: {value!r}{_meant(str(value), known)}"
            raise argparse.ArgumentError(None, f"{words} (there are: {', '.join(known)})")

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"fastconv: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without × shows another sign
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        arguments = _parser().parse_args(argv)
        code = _module(arguments.command).run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: --help, --version, a wrong argument
        return stop.code if isinstance(stop.code, int) else FAILED
    except KeyboardInterrupt:
        print("fastconv: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: `fastconv info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError, ImportError, SessionError) as error:
        if os.environ.get("FASTCONV_DEBUG"):
            raise
        _complain(error, sys.stderr)
        return WRONG


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _module(command: str) -> ModuleType:
    return import_module(f"fastconv.commands.{command.replace('-', '_')}")


def _parser() -> Parser:
    parser = Parser(
        prog="fastconv",
        description="Train convolutional networks on a CPU, write them to ONNX with proof.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def _complain(error: Exception, stream: IO[str]) -> None:
    """One line, whatever the message has; a table that belongs to it stands below."""
    if isinstance(error, OSError) and error.strerror:
        words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        words = str(error) or type(error).__name__
    print("fastconv:", " ".join(words.split()), file=stream)
    for note in getattr(error, "__notes__", ()):
        print(*(f"  {line}" for line in note.splitlines()), sep="\n", file=stream)
