"""moo ledger: show, cap, verify, anchor and export the ledger of a data set."""

import argparse
import json
import sys
from pathlib import Path

from moo.cli.arguments import Commands, Parser
from moo.cli.console import out, say, show
from moo.cli.language import sentence, spoken, words
from moo.core.errors import InputError, StorageError


def add(commands: Commands) -> None:
    """Add the commands."""
    ledger = commands.group("ledger", "what trainings cost the people in a data set: show, cap, verify, anchor, export")
    _on_data(ledger.command("show", show_ledger, "show the studies and the epsilon that they compose to"))
    cap = _on_data(ledger.command("cap", cap_ledger, "cap the epsilon that all studies together may compose to"))
    cap.add_argument("epsilon", metavar="EPSILON", type=float, help="the cap; inf lifts it")
    cap.add_argument("--delta", type=float, default=1e-5, help="delta of the cap (default 1e-5)")
    cap.add_argument("--reason", default="", help="reason for a higher cap; kept in the ledger")
    verify = _on_data(ledger.command("verify", verify_ledger, "check the chain, and an anchor that was kept elsewhere"))
    verify.add_argument(
        "--anchor", metavar="SEQ:HASH", action="append", default=[], help="anchor as `moo ledger anchor` printed it"
    )
    _on_data(ledger.command("anchor", anchor_ledger, "print the head of the chain, to be kept elsewhere"))
    _on_data(ledger.command("export", export_ledger, "print all entries as JSON Lines"))


def _on_data(parser: Parser) -> Parser:
    parser.add_argument("data", metavar="DATA", help="name of a data set, or path to a table")
    return parser


def show_ledger(options: argparse.Namespace) -> int:
    """Print the studies on a data set, their charges and the cap."""
    from moo.cli.ledger_table import print_ledger
    from moo.privacy.caps import describe_cap
    from moo.privacy.ledger import cap_of, charged, read_entries
    from moo.studies.accounting.account import ledger_path

    entries = read_entries(ledger_path(options.data))
    print_ledger(out, entries)
    show(out, sentence(spoken(describe_cap(cap_of(entries), charged(entries)))))
    return 0


def cap_ledger(options: argparse.Namespace) -> int:
    """Set the cap on a data set."""
    from moo.data.catalogue import DATASETS
    from moo.privacy.caps import Cap, describe_cap
    from moo.studies.accounting.account import cap_and_charges, ledger_of

    if options.data not in DATASETS and not Path(options.data).is_file():
        raise InputError(
            "DATA must be a data set's name or the path to a table, got {data}; see moo data list.", data=options.data
        )
    ledger = ledger_of(options.data)
    seq = ledger.cap(Cap(epsilon=options.epsilon, delta=options.delta), reason=options.reason)
    say(out, "entry {seq}: {cap}.", seq=seq, cap=spoken(describe_cap(*cap_and_charges(options.data))))
    say(out, "Keep the head elsewhere, so that a ledger without the cap is recognised: {head}", head=ledger.head())
    return 0


def verify_ledger(options: argparse.Namespace) -> int:
    """Check the chain of a ledger, and anchors."""
    from moo.privacy.ledger import parse_anchor, read_entries, seq_of, verify
    from moo.studies.accounting.account import ledger_path

    path = ledger_path(options.data)
    entries = read_entries(path)
    anchors = [f"{seq_of(text, entries)}:{text}" if ":" not in text else text for text in options.anchor]
    checked = verify(path, dict(map(parse_anchor, anchors)))
    if not checked.intact:
        raise StorageError(
            "the ledger must be as it was written, but {reason}: {path}.", reason=checked.reason, path=path
        )
    if checked.anchored:
        until = words("anchored up to entry {entry}", entry=checked.anchored)
    else:
        until = words("not anchored: a cut tail would not show")
    say(out, "intact: {n} entries, {until}", n=checked.entries, until=until)
    return 0


def anchor_ledger(options: argparse.Namespace) -> int:
    """Print the newest entry's number and hash."""
    from moo.privacy.ledger import read_entries
    from moo.studies.accounting.account import ledger_path

    last = read_entries(ledger_path(options.data))[-1]
    sys.stdout.write(f"{last.seq}:{last.hash}\n")
    return 0


def export_ledger(options: argparse.Namespace) -> int:
    """Print all entries."""
    from moo.privacy.ledger import read_entries
    from moo.studies.accounting.account import ledger_path

    for entry in read_entries(ledger_path(options.data)):
        sys.stdout.write(json.dumps(vars(entry), ensure_ascii=False) + "\n")
    return 0
