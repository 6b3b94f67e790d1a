"""What did the user configure? ``coordination.toml`` as one frozen value.

``parse(text)`` is pure; reading the file is the coordinator's. Nothing is guessed: an unknown key is an error that
names the nearest known one, and a value of the wrong type or range is an error that says what was expected.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
import tomllib
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import msgspec

from coordination.errors import SettingsError

FILE = "coordination.toml"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
WholeNumber = Annotated[int, msgspec.Meta(ge=0)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the settings values."""


class Git(Section, frozen=True, kw_only=True):
    """Branches."""

    target: str = ""  # the user's branch; written by ``coord init``
    integration: str = "coordination/integration"


class Gate(Section, frozen=True, kw_only=True):
    """A command that must exit 0 on the commit."""

    argv: tuple[str, ...]
    timeout_seconds: Positive = 600.0
    network: bool = False
    cache: bool = True  # whether a pass counts for another commit with the same files


class Gates(Section, frozen=True, kw_only=True):
    """Gates by name, and which of them run when a task names none."""

    default: tuple[str, ...] = ()
    reruns: WholeNumber = 1  # how often a gate that fails is run again
    cache: bool = True  # whether passes are kept at all
    named: dict[str, Gate] = {}


class Setup(Section, frozen=True, kw_only=True):
    """What is done in a fresh workspace before anybody works or judges there."""

    commands: tuple[tuple[str, ...], ...] = ()
    copy: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    network: bool = False
    timeout_seconds: Positive = 600.0  # of each command

    @property
    def most_seconds(self) -> float:
        """What all commands may take together."""
        return self.timeout_seconds * len(self.commands)


class LimitSettings(Section, frozen=True, kw_only=True):
    """What a task may use unless its file says otherwise."""

    timeout_seconds: Positive = 3600.0
    turns_max: Count = 200
    budget_usd: Positive = 5.0
    attempts_max: Count = 3
    rounds_max: Count = 3
    returns_max: Count = 3


PROTECTED_BY_DEFAULT = "@default"
"""Stands in ``review.protected`` for PROTECTED_DEFAULT."""

PROTECTED_DEFAULT = (
    # what runs on the servers of others, with their secrets
    *(".github/workflows/", ".github/actions/", ".github/dependabot.yml", ".gitlab-ci.yml", ".gitlab/", ".circleci/"),
    *(".buildkite/", ".drone.yml", ".travis.yml", ".woodpecker.yml", ".woodpecker/", "Jenkinsfile", "appveyor.yml"),
    *("azure-pipelines.yml", "bitbucket-pipelines.yml", ".forgejo/", ".gitea/"),
    # who may let what pass
    *("CODEOWNERS", "coordination.toml", ".coordination/"),
    # what runs on the machine of whoever checks it out, and what tells agents what to do
    *(".husky/", ".githooks/", "/.hooks/", ".pre-commit-config.yaml", "lefthook.yml", ".gitattributes", ".gitmodules"),
    *(".claude/", ".mcp.json", "CLAUDE.md", "AGENTS.md", ".devcontainer/", ".vscode/tasks.json", ".envrc"),
    # secrets
    *(".env", ".env.*", "!.env.example", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "id_rsa"),
    *("id_ed25519", "id_ecdsa", ".npmrc", ".pypirc", ".netrc", ".git-credentials", "/secrets/"),
    # whose code is taken in
    *("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb", "deno.lock"),
    *("poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "conda-lock.yml", "Cargo.lock", "go.sum", "Gemfile.lock"),
    *("composer.lock", "mix.lock", "pubspec.lock", "Podfile.lock", "packages.lock.json", "gradle.lockfile"),
    *("flake.lock", "MODULE.bazel.lock"),
)
"""Files that a person alone lets through unless settings say otherwise; see ``model.protection`` for how it is read."""


class Review(Section, frozen=True, kw_only=True):
    """When Red looks, and what a person alone lets through."""

    small_lines: WholeNumber = (
        20  # auto: a commit of at most this many changed lines whose gates passed is not reviewed
    )
    kinds: tuple[Literal["implement", "fix", "refactor", "test", "document"], ...] = ()  # auto: always reviewed
    protected: tuple[str, ...] = (PROTECTED_BY_DEFAULT,)
    protected_by: Literal["person", "review"] = "person"


class Priority(Section, frozen=True, kw_only=True):
    """Order of the queue."""

    ageing_per_minute: NotNegative = 1.0


class Landing(Section, frozen=True, kw_only=True):
    """How approved work gets onto the integration branch."""

    batch_max: Count = 16  # as many are merged and tested together


class Retry(Section, frozen=True, kw_only=True):
    """Delay before a failed task is tried again: doubles from first to most."""

    backoff_seconds: NotNegative = 5.0
    backoff_max_seconds: NotNegative = 300.0


class MoneySettings(Section, frozen=True, kw_only=True):
    """Caps over all tasks, in US dollars. What is spent and what live runs may still cost never exceed them."""

    total_usd: Positive | None = None
    day_usd: Positive | None = None
    run_min_usd: NotNegative = 0.05  # a run is not worth starting with less
    response_usd: NotNegative = 0.5  # what one answer of a model may cost beyond a run's budget


class Supervisor(Section, frozen=True, kw_only=True):
    """The loop."""

    poll_seconds: Positive = 1.0
    stop_grace_seconds: NotNegative = 10.0
    snapshot_batches: Count = 500


class Agents(Section, frozen=True, kw_only=True):
    """Driving the agent backends."""

    backend: str = ""  # overrides the roles' backend; tests and rehearsals set "scripted"
    sandbox: Literal["auto", "require", "off"] = "auto"
    shell_without_sandbox: bool = False
    no_output_seconds: Positive = 600.0
    result_grace_seconds: NotNegative = 10.0
    start_slots: WholeNumber = 0  # how many programs start at the same time; 0: one a core
    retries_max: WholeNumber = 4  # of a request to the service, by the program itself
    api_timeout_seconds: Positive = 120.0  # until the service begins to answer
    memory_gib: NotNegative = 8.0  # of a run with all it starts, gates too; 0: as much as there is
    processes_max: WholeNumber = 2000
    file_gib: NotNegative = 16.0


class Workspaces(Section, frozen=True, kw_only=True):
    """Where runs work."""

    pool: WholeNumber = 2  # trees of workspaces that were taken down, kept for new ones
    pool_gib: NotNegative = 4.0
    pool_files_min: WholeNumber = 2000  # a smaller tree is made as quickly as it is recycled


class Keep(Section, frozen=True, kw_only=True):
    """How long what ended tasks left is kept."""

    days: NotNegative = 14.0  # workspaces, sessions, transcripts, branches that landed; after the task ended
    gib: NotNegative = 20.0  # of workspaces, sessions and transcripts; beyond it the oldest go sooner; 0: no limit
    preserved_days: NotNegative = 90.0  # what is nowhere else; after that only if a person says so
    by_itself: bool = True  # whether a supervisor at rest lets go of what is safe to let go


class RoleSettings(Section, frozen=True, kw_only=True):
    """Overrides for one role."""

    model: str = ""
    fallback_model: str = ""
    slots: WholeNumber | None = None
    day_usd: Positive | None = None


class Environment(Section, frozen=True, kw_only=True):
    """Variables that runs get by name from the supervisor's own environment."""

    passed: tuple[str, ...] = msgspec.field(default=(), name="pass")


NoticeKind = Literal["needs_person", "parked", "merged", "done", "failed", "all_done"]


class Notify(Section, frozen=True, kw_only=True):
    """Whom to tell what happens, when nobody looks."""

    events: tuple[NoticeKind, ...] = ("needs_person", "parked", "failed", "all_done")
    command: tuple[str, ...] = ()  # gets the message as JSON on its standard input
    webhook: str = ""
    wait_seconds: NotNegative = 10.0  # what comes so close together is one message
    retries_max: WholeNumber = 5


class Settings(Section, frozen=True, kw_only=True):
    """The whole file. Every key has a default, so an empty file is valid."""

    git: Git = Git()
    gates: Gates = Gates()
    setup: Setup = Setup()
    limits: LimitSettings = LimitSettings()
    review: Review = Review()
    priority: Priority = Priority()
    landing: Landing = Landing()
    retry: Retry = Retry()
    money: MoneySettings = MoneySettings()
    supervisor: Supervisor = Supervisor()
    agents: Agents = Agents()
    workspaces: Workspaces = Workspaces()
    keep: Keep = Keep()
    roles: dict[str, RoleSettings] = {}
    environment: Environment = Environment()
    notify: Notify = Notify()
    gate_slots: Count = 2


TARGET = "@target@"
"""Stands in DEFAULT_TEXT where the quoted name of the user's branch goes; see ``default_text``."""

DEFAULT_TEXT = f"""\
# Settings of the coordinator, read when the supervisor starts.
# A line that begins with "#" and a word without a blank between them is a setting at its default:
# take the "#" away to change it. Unknown keys are refused, so a typing error cannot pass unnoticed.

# How many gates run at once, over all tasks.
#gate_slots = 2

[git]
# Your branch: work starts from it and takes in what it gains. Only `coord land` ever moves it, to what has landed.
target = {TARGET}
# Where approved work lands first; made from the target at the first start.
#integration = "coordination/integration"

# Commands that must exit 0 on a task's commit before it may land. Task files name gates, they never carry commands.
# A command is a list of words, or a string that is split like a shell line; no shell ever runs it.
[gates]
# Which gates run for a task that names none. Without any, a person or a reviewer is the only judge.
#default = []
# How often a gate that fails is run again, from a clean checkout. One that passes then counts as passed and is shown
# as flaky, with what it printed when it failed.
#reruns = 1
# A gate that passed is not run again on the same files (another commit, or the merge, may have them).
#cache = true
# unit = "python -m pytest -q"
# types = ["python", "-m", "mypy", "--strict", "src"]
# A gate with a time limit, one that needs the network, or one that looks at more than the files:
# [gates.integration]
# command = "make integration"
# timeout_seconds = 600.0
# network = false
# cache = true

# What is done in a fresh workspace before an agent, a reviewer or a gate gets it. It runs like a gate: in a sandbox,
# without credentials, and without the network unless it is allowed here.
[setup]
# commands = ["npm ci", "python -m venv .venv"]
# Files of your own checkout that git does not track. They are never committed and never kept.
# copy = [".env"]
# Directories that the commands make. They are kept, and given to workspaces in which these files are the same.
# keep = ["node_modules", ".venv"]
# key = ["package-lock.json"]
#network = false
# For each command.
#timeout_seconds = 600.0

# What a task may use unless its file says otherwise.
[limits]
#timeout_seconds = 3600.0
#turns_max = 200
#budget_usd = 5.0
# Failures, rejections by a reviewer, and conflicts when landing, before a task is given up.
#attempts_max = 3
#rounds_max = 3
#returns_max = 3

[review]
# Commits of at most this many changed lines whose gates passed are not reviewed (tasks with review = "auto").
#small_lines = 20
# Kinds of tasks whose commits are always reviewed then: implement, fix, refactor, test, document.
#kinds = []
# Files that need more than gates, whatever the task says, by patterns like those of .gitignore. "@default" stands for
# CI workflows, secrets, lock files, hooks, CODEOWNERS and the like (docs/review.md has the list); "!pattern" takes
# something out again: ["@default", "!package-lock.json", "infra/"].
#protected = ["@default"]
# person: such a commit waits for `coord approve`. review: Red's approval is enough.
#protected_by = "person"

[priority]
# A waiting task gains this much priority a minute, so nothing waits for ever.
#ageing_per_minute = 1.0

[landing]
# As many approved tasks are merged together and tested once; if that fails, whoever breaks the gates is searched for.
#batch_max = 16

[retry]
# How long a failed task waits before it is tried again; doubles each time up to the most.
#backoff_seconds = 5.0
#backoff_max_seconds = 300.0

# Caps over all tasks, in US dollars; without them only the budget of each task counts. A run reserves its budget
# before it starts, so runs side by side cannot exceed a cap together, except by one answer of the model: Claude Code
# stops after the answer that used up its budget.
[money]
# total_usd = 100.0
# day_usd = 20.0
# With less than this left under a cap no run starts.
#run_min_usd = 0.05
# What one answer may cost: kept free under the caps while several runs are under way, and owed by a run that was
# killed while an answer was on its way to it.
#response_usd = 0.5

[supervisor]
#poll_seconds = 1.0
#stop_grace_seconds = 10.0
#snapshot_batches = 500

[agents]
# Drives every role with this backend instead of the role's own; empty: as the role says.
#backend = ""
# auto: use the sandbox where it works; require: refuse to run without it; off: never use it.
#sandbox = "auto"
# Without a sandbox an agent gets no shell unless this is true.
#shell_without_sandbox = false
#no_output_seconds = 600.0
#result_grace_seconds = 10.0
# How many Claude Codes start at the same time; 0 is one a core. Starting takes a core for half a second.
#start_slots = 0
# How often Claude Code itself repeats a request that failed, and how long it waits for an answer to begin.
#retries_max = 4
#api_timeout_seconds = 120.0
# What a run may take, gates too, with all the processes it starts; 0 is no limit. Memory and processes are limited
# where the system lets us make control groups (`coord doctor` says whether); a file may be this long everywhere.
#memory_gib = 8.0
#processes_max = 2000
#file_gib = 16.0

[workspaces]
# How many checked out trees of workspaces that were taken down are kept, so that the next ones need not be made from
# nothing, and how much room they may take; 0 trees is none. Trees of fewer files are made as quickly as recycled.
#pool = 2
#pool_gib = 4.0
#pool_files_min = 2000

# How long what ended tasks left is kept; see docs/keeping.md. What is unmerged, or of a task that has not ended, stays.
[keep]
# Workspaces, sessions and transcripts, and branches that have landed.
#days = 14.0
# Beyond so many GiB of workspaces, sessions and transcripts the oldest go sooner; 0 is no limit.
#gib = 20.0
# What is kept under a ref and is nowhere else goes after so many days only if you say so: coord gc --apply --forget.
#preserved_days = 90.0
# A supervisor at rest lets go of workspaces of landed tasks, and of old transcripts and sessions.
#by_itself = true

# Overrides for a role, one table each.
# [roles.blue]
# model = ""
# fallback_model = ""
# slots = 2
# day_usd = 10.0

# Tell somebody who is not looking; `coord notify --test` tries it. Of: needs_person, parked (a limit of the service),
# merged, done (answered with a report), failed, all_done (nothing is left to do).
[notify]
#events = ["needs_person", "parked", "failed", "all_done"]
# A list of words, no shell: it gets the message as JSON on its standard input, and must exit 0.
#command = []
# An address that takes the same JSON by POST, as chat programs have them: its key "text" says all of it.
#webhook = ""
# What happens so close together is one message; how often one that nobody took is tried again.
#wait_seconds = 10.0
#retries_max = 5

[environment]
# Names of variables that runs get besides those every run gets. Values never stand here.
#pass = []
"""


def default_text(target: str) -> str:
    """The commented file ``coord init`` writes, with the user's branch filled in."""
    # A JSON string is a TOML basic string once DEL, the one control character JSON leaves alone, is escaped.
    quoted = json.dumps(target, ensure_ascii=False).replace("\x7f", "\\u007f")
    return DEFAULT_TEXT.replace(TARGET, quoted)


def parse(text: str, *, file: str = FILE) -> Settings:
    """Read the text of a settings file.

    ``file`` is only named in errors. Raises SettingsError, which carries the file and the dotted key.
    """
    return _Reader(file).settings(text)


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that ``name`` was most likely meant to be, or "" when none is near."""
    folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return folded[found[0]] if found else ""


_REF_BROKEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(?:^|/)\.|\.lock(?:/|$)|\.$|/$|^[-/]|^@$|^$")


def is_ref_name(text: str) -> bool:
    """Whether git would take it as the name of a branch, tag or commit (the rules of ``git check-ref-format``)."""
    return _REF_BROKEN.search(text) is None


_GATE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_GATE_KEYS = ("command", "timeout_seconds", "network", "cache")
_GATES_KEYS = ("default", "reruns", "cache")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHELL_WORD = re.compile(r"(?:&&|\|\|?|;|&|\d*>>?(?:&\d)?|<<?)|[^\s;]+;")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIALS = "the credentials and address of the model are copied by themselves; others would redirect the agent"
_SET_BY_US = "it is set for every run"
_RUNS_CODE = "it makes other programs load or run code"
_NEVER_PASSED: tuple[tuple[str, str], ...] = (
    (r"ANTHROPIC_.*", _CREDENTIALS),
    (r"CLAUDE.*", _CREDENTIALS),
    (r"COORDINATION_.*", _SET_BY_US),
    (r"HOME|PATH|TMPDIR|LANG", _SET_BY_US),
    (r"LD_.*|DYLD_.*|PYTHON.*|NODE_OPTIONS|BASH_ENV", _RUNS_CODE),
    (r"GIT_.*", "it changes which repository and programs git uses"),
)

S = TypeVar("S", bound=Section)


class _Reader:
    """Turns tables into sections; knows the file only to name it in errors."""

    def __init__(self, file: str) -> None:
        self._file = file

    def settings(self, text: str) -> Settings:
        table = self._toml(text)
        gates, setup = self._gates(table.pop("gates", {})), self._setup(table.pop("setup", {}))
        roles = self._table(table.pop("roles", {}), "roles")
        overrides = {name: self._section(value, RoleSettings, f"roles.{name}") for name, value in roles.items()}
        settings = self._section(table, Settings, "")
        settings = msgspec.structs.replace(settings, gates=gates, setup=setup, roles=overrides)
        self._check_branches(settings.git)
        self._check_environment(settings.environment.passed)
        self._check_patterns(settings.review.protected)
        self._check_notify(settings.notify)
        return settings

    def _toml(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self._error("", f"is not TOML: {error}") from error
        except RecursionError as error:
            raise self._error("", "is nested too deeply to be a settings file") from error

    def _section(self, value: object, kind: type[S], path: str) -> S:
        """One table as ``kind``: known keys only, each of its type, sections within sections."""
        table = self._table(value, path)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        for key, found in table.items():
            if key not in fields:
                raise self._unknown(path, key, list(fields))
            values[fields[key].name] = self._value(found, fields[key].type, _dotted(path, key))
        return kind(**values)

    def _value(self, found: object, kind: Any, path: str) -> Any:
        if isinstance(kind, type) and issubclass(kind, Section):
            return self._section(found, kind, path)
        if isinstance(found, float) and not math.isfinite(found):
            raise self._error(path, f"expected a finite number, found {found}")
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices and found not in choices:
            raise self._error(path, f"expected one of {', '.join(choices)}, found {found!r}")
        try:
            return msgspec.convert(found, kind)
        except msgspec.ValidationError as error:
            raise self._error(path, f"{error}, found {found!r}") from error

    def _table(self, value: object, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(path, f"expected a table [{path}], found {value!r}")
        return value

    def _gates(self, value: object) -> Gates:
        table = self._table(value, "gates")
        own = self._section({key: table.pop(key) for key in _GATES_KEYS if key in table}, Gates, "gates")
        named = {name: self._gate(name, found) for name, found in table.items()}
        for name in own.default:
            if name not in named:
                raise self._unknown_name("gates.default", name, list(named))
        return msgspec.structs.replace(own, named=named)

    def _gate(self, name: str, value: object) -> Gate:
        path = f"gates.{name}"
        # A misspelt ``default`` would otherwise be a gate whose command is the name of another gate.
        misspelt = ["default"] if not isinstance(value, (bool, int)) else _GATES_KEYS
        if difflib.get_close_matches(name.lower(), misspelt, cutoff=0.8):
            raise self._unknown("gates", name, misspelt)
        if not _GATE_NAME.fullmatch(name):
            raise self._error(path, "a gate's name is 1 to 64 letters, digits, '_' and '-', beginning with no sign")
        if not isinstance(value, dict):
            return Gate(argv=self._argv(value, path))
        for key in value:
            if key not in _GATE_KEYS:
                raise self._unknown(path, key, _GATE_KEYS)
        if "command" not in value:
            raise self._error(path, "a gate needs a command")
        argv = self._argv(value["command"], f"{path}.command")
        rest = {key: found for key, found in value.items() if key != "command"}
        return self._section({"argv": argv, **rest}, Gate, path)

    def _setup(self, value: object) -> Setup:
        table = self._table(value, "setup")
        commands = table.pop("commands", [])
        if not isinstance(commands, list):
            raise self._error("setup.commands", f"expected a list of commands, found {commands!r}")
        argvs = tuple(self._argv(command, f"setup.commands[{number}]") for number, command in enumerate(commands))
        setup = msgspec.structs.replace(self._section(table, Setup, "setup"), commands=argvs)
        for key in ("copy", "keep", "key"):
            for name in getattr(setup, key):
                self._check_path(f"setup.{key}", name)
        if setup.keep and not (setup.key and setup.commands):
            missing = "commands" if setup.key else "key"
            raise self._error("setup.keep", f"what is kept is made by commands and told by key: {missing} is empty")
        return setup

    def _check_path(self, path: str, name: str) -> None:
        parts = name.split("/")
        wrong = any(part in ("", ".", "..") or part.lower() in (".git", ".coordination") for part in parts)
        if wrong or _CONTROL.search(name):
            raise self._error(
                path, f"expected a path within the repository, without '.', '..' and .git: found {name!r}"
            )

    def _argv(self, command: object, path: str) -> tuple[str, ...]:
        argv = self._split(command, path) if isinstance(command, str) else self._value(command, tuple[str, ...], path)
        if not argv or not argv[0]:
            raise self._error(path, "expected a command, found nothing to run")
        if any("\0" in word for word in argv):
            raise self._error(path, "a command cannot hold the character NUL")
        return tuple(argv)

    def _split(self, command: str, path: str) -> Sequence[str]:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise self._error(path, f"cannot be split into words: {error}, found {command!r}") from error
        # Words that only a shell understands would be handed to the program as arguments, and the gate would lie.
        for word in words[:1]:
            if _ASSIGNMENT.fullmatch(word):
                raise self._error(path, f"no shell runs a gate, so {word!r} would be taken for the program")
        for word in words:
            if _SHELL_WORD.fullmatch(word):
                raise self._error(
                    path, f"no shell runs a gate, so {word!r} would be an argument; make two gates, or write a list"
                )
        return words

    def _check_branches(self, git: Git) -> None:
        if git.target and not is_ref_name(git.target):
            raise self._error("git.target", f"expected the name of a branch, found {git.target!r}")
        within = re.fullmatch(r"coordination/(?!task(?:/|$)|preserved(?:/|$)).+", git.integration)
        # Everything outside coordination/ belongs to the user, and coordination/task/ to the tasks.
        if not within or not is_ref_name(git.integration):
            raise self._error(
                "git.integration",
                f"expected a branch below coordination/ that is not a task's, found {git.integration!r}",
            )

    def _check_notify(self, notify: Notify) -> None:
        if notify.webhook and not re.fullmatch(r"https?://[^\s/?#]+\S*", notify.webhook):
            raise self._error("notify.webhook", "expected an address that begins with https:// or http://")
        if notify.command and not notify.command[0]:
            raise self._error("notify.command", "expected a command, found nothing to run")

    def _check_environment(self, names: Sequence[str]) -> None:
        for name in names:
            if not _VARIABLE.fullmatch(name):
                raise self._error("environment.pass", f"expected names of variables, found {name!r}")
            for pattern, reason in _NEVER_PASSED:
                if re.fullmatch(pattern, name):
                    raise self._error("environment.pass", f"{name} cannot be passed to runs: {reason}")

    def _check_patterns(self, patterns: Sequence[str]) -> None:
        """What could never fit a file protects nothing, and nobody would notice."""
        for pattern in patterns:
            names = pattern.removeprefix("!").strip("/").split("/")
            if pattern.startswith("@") and pattern != PROTECTED_BY_DEFAULT:
                raise self._unknown_name("review.protected", pattern, [PROTECTED_BY_DEFAULT], what="list of patterns")
            if not all(names) or {".", ".."} & set(names) or "\\" in pattern or pattern != pattern.strip():
                expected = "a pattern of paths from the top of the repository, like 'infra/' or '*.tf'"
                raise self._error("review.protected", f"expected {expected}, found {pattern!r}")

    def _unknown(self, path: str, key: str, known: Collection[str]) -> SettingsError:
        return self._unknown_name(_dotted(path, key), key, known, what="key")

    def _unknown_name(self, path: str, name: str, known: Collection[str], what: str = "gate") -> SettingsError:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"
        return self._error(path, f"unknown {what} {name!r}; {hint}")

    def _error(self, key: str, problem: str) -> SettingsError:
        where = f"{self._file}: {key}: " if key else f"{self._file} "
        return SettingsError(where + problem, file=self._file, key=key)


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
