"""How does a person, or a script, hand in a task?"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit, line, note, tell
from coordination.errors import Rejected

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator

WAITS_FOR_PERSON = 4


@verb(
    'coord submit "Add a --version option"',
    'coord submit --id api --kind fix --gate unit --path "src/api/**" "Fix the time zone bug"',
    'coord submit --after api --wait "Document the API"',
    "coord submit --file task.json",
    "generate-task | coord submit -",
    'coord submit --estimate --kind fix --path "src/api/**" "Fix the time zone bug"',
)
@click.argument("prompt", required=False)
@click.option("--file", "-f", type=click.File("rb"), metavar="FILE", help="A task file: one JSON object.")
@click.option("--id", metavar="ID", help="Idempotency key: the same id and content again changes nothing.")
@click.option("--title", metavar="TEXT", help="Default: the first line of the prompt.")
@click.option("--kind", metavar="KIND", help="search plan implement fix refactor test document review audit.")
@click.option("--role", metavar="ROLE", help="Who works on it; default: by kind.")
@click.option("--priority", type=int, metavar="N", help="From -100 to 100; higher starts first.")
@click.option("--after", multiple=True, metavar="TASK", help="Start when this task ended well; may be repeated.")
@click.option("--gate", "gates", multiple=True, metavar="NAME", help="A gate of the settings; may be repeated.")
@click.option("--path", "paths", multiple=True, metavar="GLOB", help="What it will touch; may be repeated.")
@click.option("--base", metavar="REF", help="Start from there instead of the integration branch.")
@click.option("--review", metavar="WHEN", help="auto, always or never.")
@click.option("--budget", "budget_usd", type=float, metavar="USD", help="What all its runs together may cost.")
@click.option("--timeout", "timeout_seconds", type=float, metavar="SECONDS", help="How long a run of it may take.")
@click.option("--turns", "turns_max", type=int, metavar="N", help="How many turns a run of it may take.")
@click.option("--attempts", "attempts_max", type=int, metavar="N", help="How many failures before it is given up.")
@click.option("--context", multiple=True, metavar="PATH", help="What the agent is given to read; may be repeated.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A note for you; may be repeated.")
@click.option("--wait", is_flag=True, help="Follow the task to its end: 0 ended well, 1 not, 4 waits for a person.")
@click.option("--estimate", is_flag=True, help="Submit nothing; say what it would cost and when it would start.")
@click.option("--json", "as_json", is_flag=True, help='Print {"task", "duplicate"}, or the estimate, as JSON.')
@click.pass_obj
def command(
    session: Session,
    /,
    prompt: str | None,
    file: BinaryIO | None,
    wait: bool,
    estimate: bool,
    as_json: bool,
    **fields: Any,
) -> int:
    """Hand in a task and print its id: PROMPT, or --file FILE, or - for standard input.

    Standard input is a task file if it is a JSON object with a prompt, else it is the prompt. A file carries
    everything, so other options cannot be given with it. It works whether or not a supervisor runs. Ctrl-C while
    waiting leaves the task alone.

    With --estimate nothing is submitted. It says what the task may cost at most, what tasks like it cost and took in
    this repository's own log, what it would wait for, and when one task would be cheaper than several.
    """
    if estimate:
        return _estimated(session, _value(prompt, file, _given(fields)), wait=wait, as_json=as_json)
    from coordination.cli._decision import hint_without_supervisor

    coordinator = session.writing()
    task, new = coordinator.accept(_value(prompt, file, _given(fields)))
    if as_json:
        emit({"task": task, "duplicate": not new})
    else:
        tell(task)
    if not new:
        note(f"{task} was submitted before with the same content.")
    if not wait:
        return 0
    hint_without_supervisor(coordinator)
    return _ended(coordinator, task)


def _estimated(session: Session, value: dict[str, Any], *, wait: bool, as_json: bool) -> int:
    from coordination.cli._estimate import row, tell_estimate

    if wait:
        raise click.UsageError("--estimate submits nothing, so there is nothing to --wait for")
    coordinator = session.reading()
    found = row(coordinator.estimate(value), supervised=coordinator.supervisor()["running"])
    if as_json:
        emit(found)
    else:
        tell_estimate(found)
    return 0


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a task file, only those that were asked for: what is left out stays left out."""
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if value is not None and value != ()
    }
    if "labels" in given:
        given["labels"] = dict(_label(label) for label in given["labels"])
    return given


def _label(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.UsageError(f"--label: expected KEY=VALUE, found {text!r}")
    return name, value


def _value(prompt: str | None, file: BinaryIO | None, given: dict[str, Any]) -> dict[str, Any]:
    if (prompt is None) == (file is None):
        raise click.UsageError("expected one of PROMPT, --file FILE or - (standard input)")
    if file is not None:
        return _whole(_decoded(_bounded(file)), given)
    if prompt != "-":
        return {"prompt": prompt, **given}
    data = _bounded(sys.stdin.buffer)
    found = _object(data)
    return {"prompt": _text(data), **given} if found is None else _whole(found, given)


def _object(data: bytes) -> dict[str, Any] | None:
    """What was sent if it is a task file, else None: then it is a prompt, braces or not."""
    try:
        found = _decoded(data)
    except Rejected:
        return None
    return found if "prompt" in found else None


def _whole(task: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    if given:
        raise click.UsageError(
            f"a task file carries everything: put {', '.join(given)} into it, not on the command line"
        )
    return task


def _decoded(data: bytes) -> dict[str, Any]:
    from coordination.model import taskfile

    return taskfile.decode(data)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected("the prompt is not UTF-8", field="prompt", expected="UTF-8", found=error.reason) from error


def _bounded(stream: BinaryIO) -> bytes:
    from coordination.inbox import BYTES_MAX

    data = stream.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        raise Rejected("the task is too large", expected=f"at most {BYTES_MAX} bytes", found="more")
    return data


def _ended(coordinator: Coordinator, task: str) -> int:
    """Follow one task until it ended, or a person has to decide; say on stderr what happens to it."""
    from coordination import views
    from coordination.model.events import described
    from coordination.model.tasks import Status

    codes = {"TaskMerged": 0, "TaskDone": 0, "TaskFailed": 1, "TaskCancelled": 1, "DependencyFailed": 1}
    codes["TaskEscalated"] = WAITS_FOR_PERSON
    known = coordinator.store.state.tasks[task]
    if known.status.ended:
        note(f"{task} has ended: {known.status}")
        return 0 if known.status.ended_well else 1
    if known.status in (Status.WAITING_FOR_PERSON, Status.WAITING_FOR_ANSWER):
        note(line(f"{task} waits for a person: {known.reason}"))
        return WAITS_FOR_PERSON
    for record in coordinator.store.follow(coordinator.store.seq, patience_seconds=math.inf):
        row = described(record)
        if row.get("task") == task:
            note(line(views.narrated(row["type"], row)))
            if row["type"] in codes:
                return codes[row["type"]]
    raise AssertionError("a log that is followed without end came to an end")
