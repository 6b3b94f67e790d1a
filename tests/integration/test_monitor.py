"""The live view in Textual's own pilot, on a real repository: every key, every screen, with nobody else running."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from coordination import locks
from coordination.coordinator import Coordinator, initialise, locate
from coordination.errors import LogDamaged, Refused
from coordination.log.segments import PAGE
from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, Limits, Outcome, Purpose, Usage
from coordination.model.tasks import Status, TaskSpec
from coordination.monitor import frames, once
from coordination.monitor.app import Monitor
from coordination.monitor.cells import text_of
from coordination.monitor.deciding import Decisions
from coordination.monitor.place import Place, Screen, Tab
from coordination.monitor.watching import Watch
from tests.unit.seeing import HOSTILE

SIZES = [(80, 24), (160, 50)]
Steps = Callable[[Pilot[None], Monitor], Awaitable[None]]


@pytest.fixture
def coordinator(repository: Path) -> Coordinator:
    """Of a repository in which A waits for a person with a commit, B runs, C waits for B and D has failed."""
    initialise(locate(repository))
    made = Coordinator(locate(repository))
    base, commit = commits(repository)
    worked = Outcome(
        ending=Ending.SUCCEEDED,
        base=base,
        commit=commit,
        diff=DiffStat(files=1, insertions=1),
        usage=Usage(cost_usd=0.5),
    )
    for name, after in (("A", ()), ("B", ()), ("C", ("B",)), ("D", ())):
        spec = TaskSpec(prompt="do it", title=f"Title of {name}", after=after)
        transact(made, e.TaskSubmitted(task=name, spec=spec, digest=""))
    for name in "ABD":
        transact(made, planned(name), e.RunStarted(task=name, run=f"{name}.1.work", pid=1))
    transact(made, e.RunEnded(task="A", run="A.1.work", outcome=worked))
    transact(made, e.TaskEscalated(task="A", reason="rejected 3 times: look yourself"))
    transact(made, e.RunEnded(task="D", run="D.1.work", outcome=Outcome(ending=Ending.FAILED, reason="no luck")))
    transact(made, e.TaskFailed(task="D", reason="no luck"))
    begin(made, "B.1.work", tool="Edit", file="src/parser.py", tokens_output=1234, cost_usd=0.25)
    return made


def commits(repository: Path) -> tuple[str, str]:
    (repository / "greeting.txt").write_text("hello\n")
    for arguments in (["add", "-A"], ["commit", "-q", "-m", "second"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True, timeout=30)
    told = subprocess.run(
        ["git", "rev-list", "HEAD"], cwd=repository, check=True, timeout=30, capture_output=True, text=True
    )
    second, first = told.stdout.split()
    return first, second


def planned(task: str) -> e.RunPlanned:
    return e.RunPlanned(
        task=task, run=f"{task}.1.work", purpose=Purpose.WORK, role="green", model="sonnet", limits=Limits(), reason="r"
    )


def transact(coordinator: Coordinator, *events: e.AnyEvent) -> None:
    coordinator.store.transact(lambda _: events)


def begin(coordinator: Coordinator, run: str, **progress: Any) -> Path:
    """The directory of a run, with what its worker says it does."""
    directory = coordinator.run_directory(run)
    directory.mkdir(exist_ok=True)
    said = {"phase": "agent", "at": time.time()} | progress
    (directory / "progress.json").write_text(json.dumps(said))
    return directory


def monitor(coordinator: Coordinator, place: Place | None = None, *, colours: bool = True) -> Monitor:
    home = coordinator.home
    return Monitor(
        coordinator, Watch(coordinator), Decisions(lambda: Coordinator(home)), place or Place(), colours=colours
    )


def driven(app: Monitor, steps: Steps, size: tuple[int, int] = (80, 24)) -> None:
    """Let the pilot take the steps in a terminal of that size."""

    async def drive() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(pilot, app)

    asyncio.run(drive())


def drawn(app: Monitor) -> str:
    """What the library really puts on the terminal."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


def showing(app: Monitor, wanted: str) -> Callable[[], bool]:
    return lambda: wanted in drawn(app)


async def until(pilot: Pilot[None], condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"it never came true:\n{drawn(pilot.app)}"  # type: ignore[arg-type]
        await pilot.pause(0.02)


# ---- screens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_screen_is_reached_by_its_key(coordinator: Coordinator, size: tuple[int, int]) -> None:
    """What is drawn is what the frame says, in full size, on every screen, tab, and in the help."""
    looks = {
        "1": "Needs you (2", "2": "Tasks (4)", "3": "Agents (1); slots", "4": "D failed: no luck",
        "question_mark": "page up, page down",
    }  # fmt: skip
    tabs = {
        "1": "A.1.work planned: green (sonnet)", "2": "+hello", "3": "No evidence yet",
        "4": "No agent has worked on it yet", "5": "Nobody has found anything",
    }  # fmt: skip

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        for key, wanted in looks.items():
            await pilot.press(key)
            await until(pilot, showing(app, wanted))
            assert drawn(app).split("\n") == [text_of(line).rstrip() for line in app.frame.lines]
            assert len(app.frame.lines) == size[1]
        await pilot.press("escape", "1", "home", "enter")
        for key, wanted in tabs.items():
            await pilot.press(key)
            await until(pilot, showing(app, wanted))

    driven(monitor(coordinator), steps, size)


def test_agents_say_what_they_do_as_they_do_it(coordinator: Coordinator) -> None:
    """A progress file that is replaced is shown without a key, and a worker without a process is not shown at work."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await until(pilot, lambda: "its process is gone" in drawn(app))
        lock = locks.hold(coordinator.run_directory("B.1.work") / "worker.lock")
        assert lock is not None
        with lock:
            await until(pilot, lambda: "Edit src/parser.py" in drawn(app))
            assert "1.2k" in drawn(app)
            begin(coordinator, "B.1.work", tool="Bash", file="")
            await until(pilot, lambda: "Bash" in drawn(app))

    driven(monitor(coordinator), steps)


def test_the_log_is_followed(coordinator: Coordinator) -> None:
    """What others write is shown without a key; the choice stays with its task, or goes to a neighbour of it."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await pilot.press("end")
        assert app.place.chosen == "queue:C"
        transact(coordinator, e.TaskSubmitted(task="F", spec=TaskSpec(prompt="p", title="The newest"), digest=""))
        await until(pilot, lambda: "The newest" in drawn(app))
        assert app.place.chosen == "queue:C"
        transact(coordinator, e.TaskCancelled(task="C"))
        await until(pilot, lambda: "> F The newest" in drawn(app))

    driven(monitor(coordinator), steps)


def test_a_terminal_that_is_resized_is_filled(coordinator: Coordinator) -> None:
    """From narrow to wide and to hardly anything."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        for width, height in ((160, 50), (30, 6), (80, 24)):
            await pilot.resize_terminal(width, height)
            await until(pilot, partial(lambda rows: len(app.frame.lines) == rows, height))
            assert len(drawn(app).split("\n")) == height

    driven(monitor(coordinator), steps)


def test_the_supervisor_is_seen_to_come_and_to_go(coordinator: Coordinator) -> None:
    """Whoever holds its lock is it; without one the second line says so."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        assert "NO SUPERVISOR: nothing moves; `coord start` starts one" in drawn(app).split("\n")[1]
        with coordinator.alone():
            await until(pilot, lambda: f"Supervisor: pid {os.getpid()}" in drawn(app))
            note = {"pid": os.getpid(), "since": time.time() - 60.0}
            (coordinator.home.state / "supervisor.json").write_text(json.dumps(note))
            coordinator.home.settings_file.touch()
            await until(pilot, lambda: "note: coordination.toml was changed after the supervisor" in drawn(app))
        await until(pilot, lambda: "NO SUPERVISOR" in drawn(app))

    driven(monitor(coordinator), steps)


def test_a_transcript_is_followed(coordinator: Coordinator) -> None:
    """The end of it, as it grows, unless one scrolls back."""
    directory = coordinator.run_directory("B.1.work")
    transcript = directory / "transcript.jsonl"
    transcript.write_text('{"type": "scripted", "tool": "write", "file": "one.py"}\n')

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        assert "write one.py" in drawn(app)
        with transcript.open("a") as stream:
            stream.write('{"type": "scripted", "tool": "write", "file": "two.py"}\n')
        await until(pilot, lambda: "write two.py" in drawn(app))
        with transcript.open("a") as stream:
            stream.writelines(
                f'{{"type": "scripted", "tool": "write", "file": "{number}.py"}}\n' for number in range(99)
            )
        await until(pilot, lambda: "write 98.py" in drawn(app))
        await pilot.press("up")
        assert "write 98.py" not in drawn(app)
        with transcript.open("a") as stream:
            stream.write('{"type": "scripted", "tool": "write", "file": "three.py"}\n')
        await until(pilot, lambda: app.frame.top_max > app.place.top + 1)
        assert "write 97.py" in drawn(app)
        await pilot.press("end")
        assert "write three.py" in drawn(app)

    driven(monitor(coordinator, Place(screen=Screen.TASK, task="B", tab=Tab.TRANSCRIPT)), steps)


def test_a_click_chooses_and_another_opens(coordinator: Coordinator) -> None:
    """The entry that is drawn there, and nothing where none is."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        row = next(row for row, entry in app.frame.hits.items() if entry == "queue:C")
        await pilot.click(offset=(10, 0))
        assert app.place.chosen == "needs:A"
        await pilot.click(offset=(10, row))
        assert app.place.chosen == "queue:C"
        await pilot.click(offset=(10, row))
        assert (app.place.screen, app.place.task) == (Screen.TASK, "C")

    driven(monitor(coordinator), steps)


# ---- decisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "task", "status"),
    [
        (("a", "y"), "A", Status.APPROVED),
        (("x", *"slow", "enter"), "A", Status.QUEUED),
        (("c", "y"), "A", Status.CANCELLED),
        (("2", "end", "r", "y"), "D", Status.QUEUED),
        (("end", "p"), "C", Status.HELD),
    ],
)
def test_a_decision_is_in_the_log(coordinator: Coordinator, keys: tuple[str, ...], task: str, status: Status) -> None:
    """Recorded like the command of that name, said, and shown."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await pilot.press(*keys)
        await until(pilot, lambda: coordinator.state().find(task).status is status)
        await until(pilot, lambda: app.place.said.startswith(task) and not app.place.failed)
        assert app._seen.state.find(task).status is status

    driven(monitor(coordinator), steps)


def test_everything_is_paused_and_let_go_on(coordinator: Coordinator) -> None:
    """`P`, and `P` again."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        for paused in (True, False):
            await pilot.press("P", "y")
            await until(pilot, partial(lambda wanted: coordinator.state().paused is wanted, paused))
            await until(pilot, partial(lambda wanted: ("PAUSED" in drawn(app)) is wanted, paused))

    driven(monitor(coordinator), steps)


def test_a_rejection_carries_the_reason(coordinator: Coordinator) -> None:
    """As it was written; what is pasted is text."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await pilot.press("x", *"too", "space", *"slow", "enter")
        await until(pilot, lambda: coordinator.state().find("A").feedback)
        assert coordinator.state().find("A").feedback[-1].message == "too slow"

    driven(monitor(coordinator), steps)


def test_what_is_refused_meanwhile_is_said(coordinator: Coordinator) -> None:
    """Somebody else was faster: the log has his decision only, and the view says why."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await pilot.press("x", *"slow")
        coordinator.store.transact(lambda state: commands.approve(state, "A"))
        await pilot.press("enter")
        await until(pilot, lambda: app.place.failed)
        assert "A is approved; only a task that waits" in app.place.said
        assert coordinator.state().find("A").status is Status.APPROVED

    driven(monitor(coordinator), steps)


def test_inside_a_run_nothing_is_decided(coordinator: Coordinator) -> None:
    """Whoever may not write is told so, and the view goes on."""

    def refused() -> Coordinator:
        raise Refused("this is a run")

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await pilot.press("c", "y")
        await until(pilot, lambda: app.place.said == "this is a run")
        assert coordinator.state().find("A").status is Status.WAITING_FOR_PERSON

    app = Monitor(coordinator, Watch(coordinator), Decisions(refused), Place(), colours=True)
    driven(app, steps)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_one_can_leave(coordinator: Coordinator, key: str) -> None:
    """And nothing is changed."""
    before = coordinator.store.refresh_seq()

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running)

    driven(monitor(coordinator), steps)
    assert coordinator.store.refresh_seq() == before


# ---- damage, hostility, colours, size --------------------------------------------------------------------------------


def damage(log: Path) -> None:
    segment = min(log.glob("*.jsonl"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)


def test_a_damaged_log_is_shown_with_what_to_run(coordinator: Coordinator) -> None:
    """From the start: no traceback, no empty list of tasks, exit code 5."""
    damage(coordinator.home.log)
    fresh = Coordinator(coordinator.home)
    text, code = once(fresh, Screen.OVERVIEW, 100, None)
    assert code == LogDamaged.exit_code
    assert "THE LOG IS DAMAGED" in text
    assert "coord repair" in text
    assert "none yet" not in text

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        assert "THE LOG IS DAMAGED" in drawn(app)
        await pilot.press("down", "enter", "a", "2", "f", "4", "3")
        assert "THE LOG IS DAMAGED" in drawn(app)

    driven(monitor(fresh), steps)


def test_what_was_read_before_the_damage_stays(coordinator: Coordinator) -> None:
    """The view keeps what it has, says that it is older, and decisions are refused, not lost."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        other = Coordinator(coordinator.home)
        segment = min(coordinator.home.log.glob("*.jsonl"))
        size = segment.stat().st_size
        transact(other, e.CoordinationPaused(reason="x"))
        data = bytearray(segment.read_bytes())
        data[size + 5] ^= 1
        segment.write_bytes(data)
        await until(pilot, lambda: "THE LOG IS DAMAGED" in drawn(app))
        assert "Title of A" in drawn(app)
        await pilot.press("c", "y")
        await until(pilot, lambda: app.place.failed)

    driven(monitor(coordinator), steps)


def test_a_log_that_was_repaired_is_read_anew(coordinator: Coordinator) -> None:
    """Numbers may mean other batches after a repair: the view begins again."""
    watch = Watch(Coordinator(coordinator.home))
    assert watch.look().state.find("A").status is Status.WAITING_FOR_PERSON
    damage(coordinator.home.log)
    coordinator.repair_log()
    found = watch.look()
    assert found.trouble == ""
    assert found.state.losses
    assert Coordinator(coordinator.home).digest(found.state) == coordinator.digest(
        Coordinator(coordinator.home).state()
    )


def test_only_what_is_durable_is_shown(coordinator: Coordinator) -> None:
    """As after a reboot: the last line is not proven by any later one. It is counted, and its task is not there."""
    transact(coordinator, e.TaskSubmitted(task="Z", spec=TaskSpec(prompt="p", title="The last one"), digest=""))
    head = coordinator.store.refresh_seq()
    coordinator.store.log.close()
    (coordinator.home.log / PAGE).unlink()
    watch = Watch(Coordinator(coordinator.home))
    watch.look()
    found = watch.look()
    assert (found.seq, found.unproven) == (head - 1, 1)
    assert found.state.get("Z") is None
    text = frames.plain_text(found, Place(), 160)
    assert "newer batches that are not proven durable: 1" in text
    assert "The last one" not in text


def test_a_state_directory_that_vanishes_is_said(coordinator: Coordinator) -> None:
    """Somebody ran `git clean -fdx`: the view says it and stays up."""

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        shutil.rmtree(coordinator.home.state)
        await until(pilot, lambda: "what is below is older" in drawn(app).lower())
        assert "Title of A" in drawn(app)
        await pilot.press("down", "enter", "escape")

    driven(monitor(coordinator), steps)


@pytest.mark.parametrize("size", SIZES)
def test_hostile_texts_reach_the_terminal_as_text(coordinator: Coordinator, size: tuple[int, int]) -> None:
    """In titles, prompts, reports and progress; neither markup nor escapes nor directions are obeyed."""
    for number, evil in enumerate(HOSTILE):
        text = evil.encode("utf-8", "replace").decode()
        spec = TaskSpec(prompt=text, title=text[:200] or "x")
        transact(coordinator, e.TaskSubmitted(task=f"h{number}", spec=spec, digest=""))
    begin(coordinator, "B.1.work", tool="\x1b[31m[red]Edit[/]", file="\x1b]0;x\x07\u202e")

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        for key in ("1", "2", "3", "4", "enter", "slash"):
            await pilot.press(key)
            shown = drawn(app)
            assert not set(shown) & set("\x00\x07\x08\r\t\x1b\x7f\x9b\x9d\u202e\u2066\u200b\u200d\ue000")
            styles = [segment.style for strip in app.screen._compositor.render_strips() for segment in strip]
            assert not any(style and (style.link or style.meta.get("@click")) for style in styles)
        await pilot.press("escape", "2", "home")
        assert "[bold red]markup[/]" in drawn(app)

    driven(monitor(coordinator), steps, size)


@pytest.mark.parametrize("colours", [True, False])
def test_without_colours_nothing_is_coloured_and_nothing_is_missing(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, *, colours: bool
) -> None:
    """The same text; what is chosen and what is alarming still stand out."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        styles = [segment.style for strip in app.screen._compositor.render_strips() for segment in strip]
        coloured = {style.color.name for style in styles if style and style.color and not style.color.is_default}
        assert bool(coloured) is colours
        assert any(style and style.reverse for style in styles)
        assert "> A" in drawn(app)
        assert "green  B.1.work" in drawn(app)

    driven(monitor(coordinator, colours=colours), steps)


def test_ten_thousand_tasks_are_as_many_as_ten(coordinator: Coordinator) -> None:
    """From a snapshot; any of them is found, and the last one is reached by a key."""
    for at in range(0, 10_000, 1_000):
        specs = [TaskSpec(prompt="p", title=f"Change number {number}") for number in range(at, at + 1_000)]
        many = [e.TaskSubmitted(task=f"k{at + number}", spec=spec, digest="") for number, spec in enumerate(specs)]
        transact(coordinator, *many)
    coordinator.store.snapshot()

    async def steps(pilot: Pilot[None], app: Monitor) -> None:
        assert "10,00" in drawn(app)
        await pilot.press("end")
        assert "> k9999" in drawn(app)
        await pilot.press("slash", *"number", "space", *"7777", "enter")
        assert "> k7777" in drawn(app)
        assert "Tasks, with 'number 7777' (1)" in drawn(app)

    driven(monitor(Coordinator(coordinator.home)), steps, (160, 50))


def test_one_frame_needs_no_library_that_draws(coordinator: Coordinator) -> None:
    """`--once` starts as fast as any other command."""
    root = str(coordinator.home.repository.root)
    asked = f"from coordination.cli import run; run(['-C', {root!r}, 'monitor', '--once'])"
    asked += "; import sys; print({'textual', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.splitlines()[-1] == "set()"


def test_reading_takes_no_lock_and_writes_nothing(coordinator: Coordinator) -> None:
    """The state directory has the same files with the same contents after a look as before."""
    before = contents(coordinator.home.state)
    watch = Watch(Coordinator(coordinator.home))
    frames.frame(watch.look(), Place(), 80, 24)
    once(Coordinator(coordinator.home), Screen.AGENTS, 80, 24)
    assert contents(coordinator.home.state) == before


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
