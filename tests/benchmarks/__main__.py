"""How fast are we beside what people would reach for instead? One command, one run, one table.

Every peer does the same work on the same filesystem with every acknowledged operation on the disk; rounds are
interleaved, so that what else the machine does hits all alike, and the median of the rounds is shown. Progress goes to
stderr, the table to stdout. Quote the ratios, never the numbers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import profiling, tables
from tests.benchmarks.peers.all import PEERS
from tests.benchmarks.running import NAMES, Options, run

_EXAMPLES = """
examples:
  python -m tests.benchmarks                           everything, about half an hour
  python -m tests.benchmarks --only P1,P2 --quick      one short round of what these targets need
  python -m tests.benchmarks --only P3 --rounds 5 --json figures.json
  python -m tests.benchmarks --only syncs              how many syncs each peer makes for one operation
  python -m tests.benchmarks --profile append          where the time of one append of ours goes
"""


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 2 when it cannot be measured here."""
    parsed = _parser().parse_args(arguments)
    directory: Path = parsed.directory
    if tables.filesystem_of(directory) == "tmpfs":
        refusal = f"{directory} is on tmpfs, where a sync costs nothing: name a directory on a disk with --directory."
        print(refusal, file=sys.stderr)
        return 2
    if parsed.profile:
        print(
            profiling.profile(parsed.profile, directory, parsed.operations or 3_000, (parsed.processes or (1,))[0] - 1)
        )
        return 0
    report = run(Options.of(parsed), lambda line: print(line, file=sys.stderr, flush=True))
    print(report.markdown())
    if parsed.json:
        parsed.json.write_text(report.json(), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=(__doc__ or "").partition("\n")[0],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", type=_some(NAMES), default=(), metavar="NAMES", help=f"some of {','.join(NAMES)}, and whom they name"
    )
    names = tuple(peer.name for peer in PEERS)
    parser.add_argument("--peers", type=_some(names), default=(), metavar="NAMES", help=f"some of {','.join(names)}")
    parser.add_argument("--quick", action="store_true", help="one round of 0.7 s, logs of 100,000 events")
    parser.add_argument("--rounds", type=int, help="how often everything is measured; the median counts (3)")
    parser.add_argument("--seconds", type=float, help="how long one measurement takes (2)")
    parser.add_argument("--operations", type=int, help="at most so many of each process; how many are profiled (3,000)")
    parser.add_argument("--processes", type=_numbers, metavar="N,N", help="how many at once (1,2,4,8,16)")
    parser.add_argument("--tasks", type=int, help="submitted before they are claimed (8,000 a second measured)")
    parser.add_argument("--events", type=_numbers, metavar="N,N", help="lengths of logs (1000,10000,100000,1000000)")
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where stores are made; not on tmpfs"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round there, too")
    parser.add_argument("--profile", choices=profiling.SUBJECTS, help="measure nothing, and say where our time goes")
    return parser


def _some(names: Sequence[str]) -> type[tuple[str, ...]]:
    def some(text: str) -> tuple[str, ...]:
        chosen = tuple(name.strip() for name in text.split(","))
        if unknown := set(chosen) - set(names):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(names)}, found {','.join(sorted(unknown))}")
        return chosen

    return some  # type: ignore[return-value] # argparse wants no more than something to call


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
