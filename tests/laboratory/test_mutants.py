"""Take any rule of the log's protocol away, and the laboratory notices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coordination.testing import mutants, mutation
from coordination.testing.mutants import MUTANTS, NONE, SURVIVORS
from coordination.testing.mutation import Change, Mutant, Outdated, beside, judge, sources_of

_ROOT = Path(__file__).parents[2]
_AT_ONCE = 2
_SECONDS_MAX = 900.0

TELLING = (
    "acknowledge-without-waiting",
    "no-sync",
    "publish-without-sync",
    "publish-without-directory-sync",
    "roll-without-sync",
    "short-write-ignored",
    "sync-retried",
    "recovery-goes-on-in-place",
    "page-of-any-boot",
    "append-without-turn",
)
QUIET_SCHEDULES = 100  # what the kernel as it is must survive in every run; most of the ten are caught within as many


def tried(name: str, seed: int, *options: str) -> subprocess.CompletedProcess[str]:
    """The command that runs the searches against one mutant."""
    command = [sys.executable, "-m", "coordination.testing.mutants", name, "--seed", str(seed), *options]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)


def tried_all(names: Sequence[str], seed: int, *options: str) -> dict[str, subprocess.CompletedProcess[str]]:
    """Two at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: tried(name, seed, *options), names), strict=True))


@pytest.mark.timeout(3 * 3600)
def test_every_mutant_is_caught(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Tier 1: the ten most telling ones, quickly. Tier 2: all but those whose survival is explained."""
    names = TELLING if tier == 1 else [name for name in MUTANTS if name not in SURVIVORS]
    answers = tried_all(names, seed, *(["--quick"] if tier == 1 else []))
    slow = [name for name, answer in answers.items() if "Timeout" in answer.stdout]
    answers |= {name: tried(name, seed) for name in slow}  # alone: was it a busy machine, or does it hang?
    hanging = [name for name in slow if "Timeout" in answers[name].stdout]
    survivors = [name for name, answer in answers.items() if answer.returncode != 0]
    note = f"{len(hanging)} of them hang"
    note += "" if tier == 1 else f"; {len(SURVIVORS)} more cannot be noticed, each explained"
    figure("G14", "protocol mutants caught", len(names) - len(survivors), violations=len(survivors), note=note)
    sys.stdout.writelines(answer.stdout for answer in answers.values())
    assert not survivors, [(answers[name].args, answers[name].stdout, answers[name].stderr) for name in survivors]


@pytest.mark.timeout(3600)
def test_the_kernel_as_it_is_passes_the_same_searches(tier: int, seed: int) -> None:
    """Positive control: what catches a mutant finds nothing where no rule is missing."""
    if tier == 1:
        searches = {"reading": mutants.reading, "simulation": mutants.schedules(QUIET_SCHEDULES)}
        verdict = judge(searches, seed)
        assert verdict.caught_by is None, verdict
    else:
        answer = tried(NONE, seed)
        assert answer.returncode == 1, (answer.args, answer.stdout, answer.stderr)


@pytest.mark.timeout(3600)
def test_who_is_called_a_survivor_survives(tier: int, seed: int) -> None:
    """An explanation that something cannot be noticed is given up as soon as something notices it."""
    assert set(SURVIVORS) <= set(MUTANTS)
    if tier == 1:
        pytest.skip("tier 2 runs all searches against those that are said to survive")
    answers = tried_all(list(SURVIVORS), seed)
    caught = {name: answer.stdout for name, answer in answers.items() if answer.returncode != 1}
    assert not caught


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)
def test_the_list_follows_the_code(mutant: Mutant) -> None:
    """Each text stands exactly once in its module, and what stands there instead can be compiled."""
    for source, path in sources_of(mutant).values():
        compile(source, str(path), "exec")
    assert mutant.rule.endswith(".")


def test_the_list_is_long_enough() -> None:
    """At least forty rules can be taken away; names are given once; the ten are in the list."""
    groups = (
        mutants.LINE,
        mutants.PUBLISHING,
        mutants.ACKNOWLEDGING,
        mutants.MARKS,
        mutants.POISON,
        mutants.RECOVERING,
        mutants.READING,
        mutants.LOCKS,
        mutants.SPEED,
    )
    assert len(MUTANTS) == sum(len(group) for group in groups)
    assert len(MUTANTS.keys() - SURVIVORS.keys()) >= 40
    assert set(TELLING) <= MUTANTS.keys() - SURVIVORS.keys()
    assert len(set(TELLING)) == 10


@pytest.mark.parametrize(
    ("module", "text", "instead", "message"),
    [
        ("coordination.log.page", "no such text", "", "found 0 times"),
        ("coordination.log.page", "def ", "", r"found \d\d times"),
        ("coordination.log.page", "BYTES = 4096", "BYTES = 4096", "changes nothing"),
        ("coordination.log.no_such_module", "", "", "there is no module"),
        ("coordination.no_such_package.module", "", "", "there is no module"),
    ],
)
def test_a_text_that_is_not_there_once_is_an_error(module: str, text: str, instead: str, message: str) -> None:
    """A list that does not fit the code any more says so."""
    with pytest.raises(Outdated, match=message):
        sources_of(Mutant(name="m", rule="", changes=(Change(module, text, instead),)))


def test_changes_of_one_module_are_made_one_after_the_other() -> None:
    """A mutant may need several texts, of one module or of several."""
    twice = tuple(Change(mutation.__name__, text, f"{text} # gone") for text in ("import sys\n", "import time\n"))
    ((source, path),) = sources_of(Mutant(name="m", rule="", changes=twice)).values()
    assert source.count("# gone") == 2
    assert path == Path(mutation.__file__)


def test_a_module_beside_the_right_one_leaves_it_alone() -> None:
    """The changed module has the change, and the right one has not."""
    change = Change(mutants.__name__, 'NONE = "none"', 'NONE = "other"')
    assert beside(Mutant(name="m-1", rule="", changes=(change,))).NONE == "other"
    assert mutants.NONE == "none"


def test_what_was_imported_cannot_be_changed_any_more() -> None:
    """Installing too late is an error, or the right kernel would be tried in the mutant's name."""
    with pytest.raises(RuntimeError, match="imported before"):
        mutation.install(next(iter(MUTANTS.values())))


def test_the_command_says_what_it_does_not_know() -> None:
    """An unknown name is an error of its own, not a survivor."""
    answer = tried("no-such-mutant", 0)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "no-such-mutant" in answer.stderr
