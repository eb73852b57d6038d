"""``audit verify``, ``head``, ``prove``, ``list``, ``export``, ``key``: the audit log for those who must answer for it.

Who looks into the log is written to the log first (ON-10). ``verify`` alone writes nothing: it must be able to look
at a copy that nobody may touch, and it shows nothing of the mail. ``list`` is the report of ON-18: any period, any
order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.cli.audit_proofs import head, key, prove
from gateway.cli.audit_report import export, listing
from gateway.cli.audit_verify import verify
from gateway.cli.session import SubCommands
from gateway.core.audit import SORT_FIELDS

MAX_LINES = 10_000


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("audit", "read, prove and export the audit log")
    _register_verify(group)
    _register_proofs(group)
    _register_reports(group)


def _register_verify(group: SubCommands) -> None:
    parser = group.add(
        "verify",
        "check the whole log and every row it answers for",
        "Walk every event, every row that an event answers for, the tree and its signed heads, and name the first\n"
        "thing that does not hold (status 1). With --against, prove that today's log is an extension of a head that\n"
        "was kept elsewhere: nothing else shows that the end was cut off, or an older copy put in place.\n"
        "Nothing is written; mail may go on meanwhile.",
        "audit verify\naudit verify --against /media/safe/head.json --public-key /media/safe/heads.pub.pem",
        run=verify,
    )
    parser.add_argument(
        "--against", metavar="HEAD.json", type=Path, action="append", default=[], help="a head from elsewhere"
    )
    parser.add_argument(
        "--public-key", metavar="FILE", type=Path, action="append", default=[], help="who signed (default: our own key)"
    )
    parser.add_argument(
        "--bodies",
        choices=("none", "first", "all"),
        default="first",
        help="open of each body, where the keys are at hand: its first part (default), all of it, or nothing",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _register_proofs(group: SubCommands) -> None:
    parser = group.add(
        "head",
        "make a signed head of the log now",
        "Keep the head where this machine cannot write: what it covers can then never be changed unseen.",
        "audit head\naudit head --out /media/safe/head.json",
        run=head,
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it there; default: standard output")
    parser = group.add(
        "prove",
        "prove that one event is in the log, or that the log only grew",
        "SEQ: the proof that the event is in the tree of the newest head (RFC 9162 2.1.3).\n"
        "--since HEAD.json: the proof that the newest head extends that one (RFC 9162 2.1.4).",
        "audit prove 17 --json\naudit prove --since head.json",
        run=prove,
    )
    parser.add_argument("seq", metavar="SEQ", type=int, nargs="?", help="number of the event")
    parser.add_argument("--node", help="of which node (default: this one)")
    parser.add_argument("--since", metavar="HEAD.json", type=Path, help="an older head")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser = group.add(
        "key",
        "print the public key that signs the heads",
        "Give it to whoever keeps the heads.",
        "audit key\naudit key --out heads.pub.pem",
        run=key,
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it there; default: standard output")


def _register_reports(group: SubCommands) -> None:
    parser = group.add(
        "list",
        "list events of the log",
        "Who did what, to what, when; the newest first. The id of a message also finds the looks at several messages\n"
        "that it was among. That you look is in the log, too. A line is cut to fit a screen: --json shows all of it.",
        "audit list --since 2026-03-01 --until 2026-04-01 --sort actor\naudit list --subject MESSAGE_ID",
        run=listing,
    )
    _filters(parser)
    parser.add_argument("--sort", choices=SORT_FIELDS, default="at", help="by which entry (default: at)")
    parser.add_argument("--ascending", action="store_true", help="the first first")
    parser.add_argument("--limit", type=_count, default=50, metavar="N", help="lines (default: 50)")
    parser.add_argument("--page", type=_count, default=1, metavar="N", help="which page of so many lines (default: 1)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser = group.add(
        "export",
        "export the log as JSON Lines, with its hashes",
        "In the order of the tree, each event with its hash and its leaf: docs/audit.md has the script with which\n"
        "anybody can verify the file, against a head as well, without this program.",
        "audit export --out log.jsonl",
        run=export,
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write it there; default: standard output")


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--who", metavar="ACTOR", default="", help="a login, cli:USER, or gateway")
    parser.add_argument("--action", metavar="A", default="", help="message.read, login.failed ...; message.* for all")
    parser.add_argument("--subject", metavar="ID", default="", help="a message, a login, a bundle ...")
    parser.add_argument("--node", default="", help="of one node only")
    parser.add_argument("--since", metavar="WHEN", help="from this moment on: 2026-03-01 or with a time")
    parser.add_argument("--until", metavar="WHEN", help="before this moment")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= number <= MAX_LINES:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_LINES}")
    return number
