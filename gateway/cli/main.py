"""The ``direct-gateway`` command.

Exit status: 0 done; 1 done, with something to look at (refused, not found, a contradiction); 2 wrong use or
configuration; 3 a fault while running; 75 (``serve``) a store that failed or does not answer. An error is one line on
standard error that says what to do, and with ``--json`` {"error": TEXT} on standard output as well. The traceback is
shown with ``--debug`` only, because it may hold what must not be copied into a ticket; and so are the lines of the log,
because a command tells what happened in its own words.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

import gateway
from gateway.cli import (
    commands_audit,
    commands_backup,
    commands_bundle,
    commands_config,
    commands_copy,
    commands_fetch,
    commands_health,
    commands_import,
    commands_init,
    commands_job,
    commands_keys,
    commands_link,
    commands_match,
    commands_message,
    commands_patient,
    commands_plugin,
    commands_pop3,
    commands_quarantine,
    commands_session,
    commands_store,
    commands_user,
)
from gateway.cli.output import clean, note, print_json
from gateway.cli.session import EXIT_STATUS_HELP, EXIT_TEMPORARY_HELP, FAULT, FINDINGS, MISUSE, SubCommands
from gateway.core.errors import (
    ConfigurationError,
    GatewayError,
    InputError,
    KeyUnavailableError,
    ListenError,
    StoreError,
)
from gateway.observability.log import configure, keep_silent
from gateway.settings import LogSettings

DESCRIPTION = """\
A Direct Secure Messaging gateway: takes S/MIME mail from other HISPs, checks who signed it,
decrypts it, keeps it for ever, shows it to mail clients over IMAP and links it to patients."""

EPILOG = f"""\
first steps:
  direct-gateway init clinic --domain direct.example.org --address front-desk
  direct-gateway serve --config clinic/gateway.toml

--config FILE may stand before or after the command. Without it: $DIRECTGW_CONFIG, ./gateway.toml,
./config/gateway.toml. A folder means the gateway.toml in it.

{EXIT_STATUS_HELP}
{EXIT_TEMPORARY_HELP}"""

INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. No heavy room is imported for it."""
    shared = _shared_options(argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog="direct-gateway",
        description=DESCRIPTION,
        epilog=EPILOG,
        parents=[_shared_options(None)],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"direct-gateway {gateway.__version__}")
    commands = SubCommands(parser, shared, "COMMAND")
    commands_init.register(commands)
    commands_config.register(commands)
    commands_health.register(commands)
    commands_patient.register(commands)
    commands_match.register(commands)
    commands_message.register(commands)
    commands_bundle.register(commands)
    commands_quarantine.register(commands)
    commands_link.register(commands)
    commands_import.register(commands)
    commands_plugin.register(commands)
    commands_fetch.register(commands)
    commands_job.register(commands)
    commands_keys.register(commands)
    commands_user.register(commands)
    commands_session.register(commands)
    commands_pop3.register(commands)
    commands_audit.register(commands)
    commands_store.register(commands)
    commands_backup.register(commands)
    commands_copy.register(commands)
    return parser


def _shared_options(default: str | None) -> argparse.ArgumentParser:
    """Options that may stand before or after the command.

    In a sub-parser the default is SUPPRESS: otherwise it would overwrite what stood before the command.
    """
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", metavar="FILE", default=default, help="the gateway.toml, or the folder it is in")
    shared.add_argument(
        "--debug",
        action="store_true",
        default=False if default is None else default,
        help="show where an error came from, and the lines of the log",
    )
    return shared


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; misuse ends the process with status 2, as argparse does.

    argparse takes an optional positional as left out as soon as an option follows the one before it:
    ``message export ID --raw FILE`` would be refused. Here the one word that is left over is that FILE.
    """
    parser = build_parser()
    args, left_over = parser.parse_known_args(words)
    if len(left_over) == 1 and getattr(args, "file", "") is None and (left_over[0] == "-" or left_over[0][0] != "-"):
        args.file = left_over[0]
    elif left_over:
        parser.error(f"unrecognized arguments: {' '.join(left_over)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(words)
    if args.debug:
        configure(LogSettings())
    else:
        keep_silent()
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (``| head``) has gone. Without this, Python would complain once more at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINDINGS
    except Exception as exc:  # noqa: BLE001 - the outermost boundary: every fault becomes one line and a status
        if args.debug:
            traceback.print_exception(exc)
        found = _innermost(exc)
        if getattr(args, "json", False):
            print_json({"error": _words(found, debug=args.debug)})
        return _report(found, debug=args.debug)
    return status


def _report(found: Exception, *, debug: bool) -> int:
    """Say on standard error what went wrong; returns the exit status."""
    note(f"error: {clean(_words(found, debug=debug))}")
    if isinstance(found, ConfigurationError | InputError):
        return MISUSE
    if isinstance(found, GatewayError) and not isinstance(found, StoreError | ListenError | KeyUnavailableError):
        return FINDINGS
    return FAULT


def _words(found: Exception, *, debug: bool) -> str:
    """One line that says what to do."""
    if isinstance(found, GatewayError):
        return str(found)
    if isinstance(found, OSError):
        where = f"{found.filename}: " if found.filename else ""
        return f"{where}{found.strerror or found}"
    return f"unexpected fault ({type(found).__name__})" + ("" if debug else "; --debug shows where")


def _innermost(exc: Exception) -> Exception:
    """An exception group with one cause (a TaskGroup that ended) is that cause."""
    found = exc
    while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found


if __name__ == "__main__":
    sys.exit(main())
