"""The command line: the app, and the one place where errors become exit codes.

Light on purpose: what commands need is imported in their bodies, so that `mmgen --help` answers at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mmgen import __version__
from mmgen.cli import ask, caption, chat, draw, export, info, interleave, models, serve, vary, verify
from mmgen.cli.options import HeadedCommand
from mmgen.errors import MmgenError, UsageError, reason
from mmgen.outputs.terminal import Notes, PipeClosedError, stdout_failure

_TYPERS = {"-h", "--help", "help", "-V", "--version", "--show-completion"}  # what Typer itself writes
INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell sees of any program that a closed pipe ended

_COMMANDS = {
    each.__name__.rpartition(".")[2]: each
    for each in (caption, ask, draw, vary, interleave, chat, info, verify, models, export, serve)
}

EXAMPLES = """\b
Examples:
  $ mmgen draw "a snowman" -o snowman.png
  $ mmgen caption snowman.png
"""

app = typer.Typer(
    rich_markup_mode=None,  # plain help: nothing coloured on stdout, and no wait for Rich
    pretty_exceptions_enable=False,  # a bug keeps its own traceback
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 10**4},  # as wide as the terminal
)
for _name, _file in _COMMANDS.items():
    app.command(_name, cls=HeadedCommand, epilog=_file.EXAMPLES)(getattr(_file, _name))
_report_examples = export.EXAMPLES.replace("mmgen export", "mmgen report")
app.command("report", cls=HeadedCommand, epilog=_report_examples, hidden=True)(export.export)


@app.command("help", cls=HeadedCommand)
def _help(
    context: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", show_default=False, help="Which.")] = None,
) -> None:
    """Show the help of mmgen, or of a command."""
    above = context.parent
    assert above is not None
    if command is None:
        typer.echo(above.get_help())
        return
    found = above.command.get_command(above, command)  # type: ignore[attr-defined]  # above is a group
    if found is None:
        raise UsageError(f"no such command: {command}", f"one of {', '.join(_COMMANDS)}")
    typer.echo(found.get_help(found.context_class(found, info_name=command, parent=above)))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmgen {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def _mmgen(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Caption, ask, draw, vary, interleave and chat with local models.

    Results go to stdout, all else to stderr. Options of model and sampling have environment variables too: --top-p
    is MMGEN_TOP_P. MMGEN_DEBUG=1 shows where an error came from.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code: 0 done, 1 failed, 2 misused, 130 interrupted, 141 pipe closed."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _replace_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names come out as they went in, in any locale
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    warnings.filterwarnings("ignore", module="PIL")  # odd EXIF is of no concern to who asks for a caption
    try:
        code = app(arguments, prog_name="mmgen", standalone_mode=False)
    except PipeClosedError:
        return PIPE_CLOSED
    except SystemExit as end:  # Typer's own, after --install-completion; or nobody reads the help that is written
        is_closed = isinstance(end.__context__, BrokenPipeError)
        return PIPE_CLOSED if is_closed else end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.TyperException as error:
        return _report(_explained(error, arguments), error)
    except MmgenError as error:
        return _report(error, error)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # raised by whoever only asks whether a path is there
            return _report(UsageError(f"cannot open {error.filename}: {reason(error)}", "give a shorter name"), error)
        if not _TYPERS & set(arguments):  # all else has told stdout's failures
            raise
        failure = stdout_failure(error)
        if not isinstance(failure, MmgenError):
            return PIPE_CLOSED
        return _report(failure, error)
    finally:
        Notes.hear_no_more()
    return code if isinstance(code, int) else 0


def _replace_closed_streams() -> None:
    """Stand in for the standard streams that a shell has closed (`>&-`), so that nobody has to ask for them."""
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - open as long as we run
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- likewise
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- likewise


def _explained(error: typer.TyperException, arguments: Sequence[str]) -> UsageError:
    from mmgen.cli.mistyped import explain

    return explain(error, arguments, next((word for word in arguments if word in (*_COMMANDS, "report")), None))


def _report(error: MmgenError, cause: Exception) -> int:
    if os.environ.get("MMGEN_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(cause)
    Notes(quiet=True).error(error)
    return error.exit_code
