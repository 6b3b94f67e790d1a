"""How does a frame reach a terminal, and a key the place? The only user of Textual, and as thin as it can be.

Colours are the sixteen of the terminal itself, so they fit whatever background the person chose. Looking and drawing
happen in this thread and take a few milliseconds; git is asked and decisions are recorded in others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError
from coordination.monitor import frames, place
from coordination.monitor.cells import Line, Tone, cells
from coordination.monitor.deciding import Decisions
from coordination.monitor.frames import Frame
from coordination.monitor.papers import Paper
from coordination.monitor.place import Place, Screen, Tab
from coordination.monitor.watching import Transcripts, Watch, diff_of
from coordination.monitor.wishes import Wish

LOOK_SECONDS = 0.25

_STYLES = {
    Tone.PLAIN: Style(),
    Tone.STRONG: Style(bold=True),
    Tone.FAINT: Style(dim=True),
    Tone.HEAD: Style(bold=True, underline=True),
    Tone.CHOSEN: Style(reverse=True),
    Tone.ALARM: Style(bold=True, reverse=True, color="red"),
    Tone.BLUE: Style(bold=True, color="bright_blue"),
    Tone.GREEN: Style(bold=True, color="green"),
    Tone.RED: Style(bold=True, color="red"),
}


class Sheet(Widget, can_focus=True):
    """The whole terminal: lines that are there already, of which those that changed are drawn."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._styles = {tone: style if colours else style.without_color for tone, style in _STYLES.items()}
        self._lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Draw these lines, as far as they are others than before."""
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [at for at, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, at, self.size.width, 1) for at in changed))

    def render_line(self, y: int) -> Strip:
        """One line, as Textual asks for it."""
        line = self._lines[y] if y < len(self._lines) else ()
        # the width is ours to know: a frame's lines are exactly as wide as the terminal
        return Strip([Segment(text, self._styles[tone]) for text, tone in line], sum(cells(part.text) for part in line))


class Monitor(App[None]):
    """Looks, draws, and takes keys."""

    CSS = "Screen, Sheet { background: ansi_default; color: ansi_default; }"
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    BINDINGS = [
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+q", "leave", show=False, priority=True),
        Binding("ctrl+l", "draw_all", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
    ]

    def __init__(
        self, coordinator: Coordinator, watch: Watch, decisions: Decisions, place_: Place, *, colours: bool
    ) -> None:
        super().__init__(ansi_color=True)
        self._coordinator = coordinator
        self._watch = watch
        self._decisions = decisions
        self._recording = ThreadPoolExecutor(1, thread_name_prefix="decisions")
        self._transcripts = Transcripts(coordinator)
        self._sheet = Sheet(colours=colours)
        self._seen = watch.look()
        self._paper = Paper()
        self._change: tuple[str, str] | None = None  # the task and commit whose change was asked for last
        self.place = place.settled(self._seen, place_)
        self.frame = Frame(lines=())
        self.failure: Exception | None = None

    def show(self) -> None:
        """Run until the person leaves. Raises what nobody expected, once the terminal is whole again."""
        try:
            self.run()
        finally:
            self._recording.shutdown()
        if self.failure is not None:
            raise self.failure

    def compose(self) -> ComposeResult:
        """One sheet; everything on it is ours."""
        yield self._sheet

    def on_mount(self) -> None:
        """Begin to look."""
        self._sheet.focus()
        self.app_resume_signal.subscribe(self, lambda _: self.action_draw_all())  # the shell wrote over it
        self.set_interval(LOOK_SECONDS, self._tick)

    def on_resize(self, _event: events.Resize) -> None:
        """Draw anew in the room that there is."""
        self._draw()

    def _handle_exception(self, error: Exception) -> None:
        """Leave, and let the command line say it: an agent's text in a drawn traceback would not be harmless."""
        self.failure = self.failure or error
        self.exit(return_code=1)

    # -- looking and drawing -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Once a second, for clocks and for what runs do; at once when the log has more."""
        if self._watch.stirred() or int(self._coordinator.now()) != int(self._seen.now):
            self._look()

    def _look(self) -> None:
        self._seen = self._watch.look()
        self.place = place.settled(self._seen, self.place)
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        self._read_up()
        self.place = place.following(self.place, self.frame.top_max)
        self.frame = frames.frame(self._seen, self.place, width, height, self._paper)
        if self.place.top > self.frame.top_max:
            self.place = replace(self.place, top=self.frame.top_max)
        self._sheet.show(self.frame.lines)

    def _read_up(self) -> None:
        """What the open tab needs from files and git."""
        task = self._seen.state.get(self.place.task) if self.place.screen is Screen.TASK else None
        if task is None:
            return
        if self._paper.task != task.id:
            self._paper, self._change = Paper(task=task.id), None
        if self.place.tab is Tab.TRANSCRIPT:
            self._paper = self._transcripts.read(task, self._paper)
        if self.place.tab is Tab.DIFF and self._change != (task.id, task.commit):
            self._change = task.id, task.commit
            self.run_worker(self._read_change(self._change), exit_on_error=True)

    async def _read_change(self, change: tuple[str, str]) -> None:
        task = self._seen.state.tasks[change[0]]
        try:
            text = await asyncio.to_thread(diff_of, self._coordinator, task)
        except (CoordinationError, OSError) as error:
            text = f"It cannot be read: {error}"
        if self._change == change:  # else the person went on to another task
            self._paper = replace(self._paper, diff=text)
            self._draw()

    # -- keys, wheel and paste -----------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Every key that reaches us is ours."""
        event.stop()
        event.prevent_default()
        self._press(event.key, event.character)

    def on_mouse_scroll_down(self, _event: events.MouseScrollDown) -> None:
        """Scroll."""
        self._press("wheel_down")

    def on_mouse_scroll_up(self, _event: events.MouseScrollUp) -> None:
        """Scroll."""
        self._press("wheel_up")

    def on_click(self, event: events.Click) -> None:
        """Choose what was clicked; open what was chosen already."""
        entry = self.frame.hits.get(event.y)
        if entry is None or self.place.question is not None or self.place.helping:
            return
        if entry == self.place.chosen:
            self._press("enter")
            return
        self.place = place.settled(self._seen, replace(self.place, chosen=entry, at=-1))
        self._draw()

    def on_paste(self, event: events.Paste) -> None:
        """Text, never keys."""
        event.stop()
        self.place = place.pasted(self.place, event.text)
        self._draw()

    def action_leave(self) -> None:
        """Nothing that runs is touched."""
        self.exit()

    def action_draw_all(self) -> None:
        """Another program may have written over it."""
        self._sheet.refresh()

    def _press(self, key: str, sign: str | None = None) -> None:
        self.place, wish = place.pressed(self._seen, self.place, key, sign, self.frame.page)
        if self.place.left:
            self.exit()
            return
        if wish is not None:
            self.run_worker(self._record(wish), exit_on_error=True)
        self.place = place.settled(self._seen, self.place)
        self._draw()

    async def _record(self, wish: Wish) -> None:
        """In another thread: a writer waits for its turn and for the disk."""
        try:
            said, failed = (
                await asyncio.get_running_loop().run_in_executor(self._recording, self._decisions.record, wish),
                False,
            )
        except (CoordinationError, OSError) as error:
            said, failed = str(error), True
        self.place = replace(self.place, said=said, failed=failed)
        self._look()
