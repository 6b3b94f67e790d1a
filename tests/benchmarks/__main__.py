"""How fast are we beside what people would reach for instead? One command, one run, one table.

Every peer does the same work on the same filesystem with every acknowledged operation on the disk; rounds are
interleaved, so that what else the machine does hits all alike, and the median of the rounds is shown. Progress goes to
stderr, the table to stdout. Quote the ratios, never the numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import tables
from tests.benchmarks.measuring import Measured, Operation, Plan, measure
from tests.benchmarks.peers import Peer
from tests.benchmarks.peers.fsync_under_lock import FsyncUnderLock
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.peers.sqlite import SQLite
from tests.benchmarks.targets import TARGETS, Target

PEERS: tuple[Peer, ...] = (Ours(), SQLite(), FsyncUnderLock())
_PROCESSES = (1, 2, 4, 8, 16)
_TASKS_A_SECOND = 8_000
_EXAMPLES = """
examples:
  python -m tests.benchmarks                           everything, some 20 minutes
  python -m tests.benchmarks --only P1,P2 --quick      one short round of what these targets need
  python -m tests.benchmarks --only P3 --rounds 5 --json figures.json
"""


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    directory = Path(options.directory)
    refused = _refused(directory)
    if refused:
        print(refused, file=sys.stderr)
        return 2
    targets = [target for target in TARGETS if not options.only or target.goal in options.only]
    figures = _measure_all(options, targets, directory)
    _print(figures, targets, directory, options)
    if options.json:
        _write(options.json, figures, directory)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=(__doc__ or "").partition("\n")[0],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_names, default=(), metavar="P1,P2", help="these targets and whom they name")
    parser.add_argument("--quick", action="store_true", help="one round of 0.7 s instead of three of 2 s")
    parser.add_argument("--rounds", type=int, help="how often everything is measured; the median counts")
    parser.add_argument("--seconds", type=float, help="how long one measurement takes")
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="where stores are made; not on tmpfs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there, too")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    known = dict.fromkeys(target.goal for target in TARGETS)
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, found {name!r}")
    return names


def _refused(directory: Path) -> str:
    if ", tmpfs," in tables.machine(directory):
        return f"{directory} is on tmpfs, where a sync costs nothing: name a directory on a disk with --directory."
    return ""


def _measure_all(options: argparse.Namespace, targets: Sequence[Target], directory: Path) -> tables.Figures:
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = options.seconds or (0.7 if options.quick else 2.0)
    figures: dict[tables.Cell, list[Measured]] = defaultdict(list)
    for number in range(rounds):
        for operation, processes in _cells(options, targets):
            for peer in PEERS:
                if operation == "claim and complete" and isinstance(peer, FsyncUnderLock):
                    continue
                tasks = int(_TASKS_A_SECOND * seconds) if operation == "claim and complete" else 0
                print(f"round {number + 1}/{rounds}: {operation}, {processes}, {peer.name}", file=sys.stderr)
                plan = Plan(operation=operation, processes=processes, seconds=seconds, tasks=tasks)
                figures[operation, processes, peer.name].append(measure(peer, plan, directory))
    return figures


def _cells(options: argparse.Namespace, targets: Sequence[Target]) -> list[tuple[Operation, int]]:
    if options.only or options.quick:
        return list(dict.fromkeys((target.operation, target.processes) for target in targets))
    return [(operation, processes) for operation in ("append", "claim and complete") for processes in _PROCESSES]


def _print(figures: tables.Figures, targets: Sequence[Target], directory: Path, options: argparse.Namespace) -> None:
    print(f"{tables.machine(directory)}\n")
    print(tables.targets_table(figures, targets))
    for figure in ("per_second", "p50_ns", "p99_ns", "longest_ns", "fairness"):
        print(tables.peers_table(figures, figure, list(dict.fromkeys(peer for _, _, peer in figures))))


def _write(file: Path, figures: tables.Figures, directory: Path) -> None:
    measured = [
        {"operation": operation, "processes": processes, "peer": peer, "rounds": [asdict(one) for one in rounds]}
        for (operation, processes, peer), rounds in figures.items()
    ]
    file.write_text(json.dumps({"machine": tables.machine(directory), "measured": measured}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
