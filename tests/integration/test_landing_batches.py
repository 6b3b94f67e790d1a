"""Several approved commits land together on a real repository: what is good lands, the rest comes back, once each."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from coordination.model.runs import GateResult, LandingRequest, MemberRequest, WorkspaceRequest
from coordination.workspaces import BranchAstray, LandingResult, Workspaces
from coordination.workspaces.git import Git

INTEGRATION = "coordination/integration"
CALLS_BEFORE = 19  # of git, for one landing, when tasks landed one by one
Rule = Callable[[Mapping[str, str]], bool]


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, check=True, timeout=60)
    return done.stdout.decode().strip("\n")


@dataclass
class Scene:
    """A repository, work on branches of its tasks, and gates that look at the files of what is tested."""

    root: Path
    rules: dict[str, Rule] = field(default_factory=dict)
    tested: list[tuple[str, str]] = field(default_factory=list)  # commit, gate
    meanwhile: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.root.mkdir()
        git(self.root, "init", "--quiet", "--initial-branch=main", "--template=")
        (self.root / "story.txt").write_text("one\ntwo\nthree\n")
        git(self.root, "add", "--all")
        git(self.root, "commit", "--quiet", "--message=Start")
        self.workspaces = Workspaces(self.root / ".git", self.root / ".coordination")
        self.workspaces.exclude()
        self.workspaces.ensure_integration(INTEGRATION, "main")

    def rev(self, name: str) -> str:
        return git(self.root, "rev-parse", name)

    def work(self, task: str, files: Mapping[str, str]) -> str:
        """A commit on top of ``main`` on the task's branch, made in objects: no workspace is needed."""
        return self.commit(f"refs/heads/coordination/task/{task}", self.rev("main"), files)

    def commit(self, ref: str, parent: str, files: Mapping[str, str]) -> str:
        index = {"GIT_INDEX_FILE": str(self.root / ".git/scratch-index")}
        (self.root / ".git/scratch-index").unlink(missing_ok=True)

        def ask(*arguments: str, stdin: str = "") -> str:
            environment = {"PATH": "/usr/bin:/bin", **index}
            environment |= {
                f"GIT_{who}_{what}": "u@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            }
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.root,
                input=stdin.encode(),
                env=environment,
                capture_output=True,
                check=True,
            )
            return done.stdout.decode().strip()

        ask("read-tree", parent)
        for name, text in files.items():
            blob = ask("hash-object", "-w", "--stdin", stdin=text)
            ask("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
        made = ask("commit-tree", ask("write-tree"), "-p", parent, "-m", f"Write {', '.join(files)}")
        ask("update-ref", ref, made)
        return made

    def gates(self, directory: Path, commit: str, names: Sequence[str] | None) -> tuple[GateResult, ...]:
        """Each named gate is a rule about all files of the checkout, which must be exactly the commit."""
        assert git(directory, "rev-parse", "HEAD") == commit
        assert git(directory, "status", "--porcelain", "--ignored") == ""
        files = {path.name: path.read_text() for path in directory.iterdir() if path.is_file() and path.name != ".git"}
        results = []
        for name in names or ():
            self.tested.append((commit, name))
            code = 0 if self.rules[name](files) else 1
            results.append(GateResult(gate=name, commit=commit, exit_code=code, output=f"{name} saw {sorted(files)}"))
            (directory / "built.txt").write_text("what a gate leaves behind")
        self.meanwhile()
        return tuple(results)

    def request(self, commits: Mapping[str, str], gates: Mapping[str, Sequence[str]] | None = None) -> LandingRequest:
        named = {task: tuple((gates or {}).get(task, self.rules)) for task in commits}
        first, *others = commits
        members = [
            MemberRequest(task=task, commit=commits[task], message=f"Land {task}", gates=named[task]) for task in others
        ]
        return LandingRequest(
            commit=commits[first],
            branch=INTEGRATION,
            target="main",
            message=f"Land {first}",
            gates=named[first],
            onto=self.rev(INTEGRATION),
            batch=tuple(members),
        )

    def land(
        self,
        commits: Mapping[str, str],
        gates: Mapping[str, Sequence[str]] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> dict[str, LandingResult]:
        request = self.request(commits, gates)
        return self.workspaces.land_batch(request, task=next(iter(commits)), gates=self.gates, stopping=stopping)

    def landed(self) -> list[str]:
        """The tasks on the branch, oldest first, by the trailers of its merges."""
        wanted = "--format=%(trailers:key=Coordination-Task,valueonly,separator=%x20)"
        return git(
            self.root, "log", "--first-parent", "--merges", "--reverse", wanted, f"{self.base}..{INTEGRATION}"
        ).split()

    @property
    def base(self) -> str:
        return git(self.root, "rev-list", "--max-parents=0", "main")

    def files(self) -> list[str]:
        return git(self.root, "ls-tree", "--name-only", INTEGRATION).split()


def kinds(results: Mapping[str, LandingResult]) -> dict[str, str]:
    return {task: result.kind for task, result in results.items()}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "repo")


def test_what_breaks_the_gates_only_in_company_comes_back_and_the_others_land(scene: Scene) -> None:
    """Of four the third passes alone and fails with the second: one, two and four land, three has the output."""
    scene.rules["unit"] = lambda files: not {"two.txt", "three.txt"} <= set(files)
    commits = {task: scene.work(task, {f"{task}.txt": task}) for task in ("one", "two", "three", "four")}
    results = scene.land(commits)
    assert kinds(results) == {"one": "merged", "two": "merged", "three": "gate_failed", "four": "merged"}
    assert scene.landed() == ["one", "two", "four"]
    assert scene.files() == ["four.txt", "one.txt", "story.txt", "two.txt"]
    failed = results["three"]
    assert failed.on_top_of == ("one", "two")
    assert "three.txt" in failed.gates[0].output
    assert "two.txt" in failed.gates[0].output
    for task in ("one", "two", "four"):
        result = results[task]
        assert git(scene.root, "rev-parse", f"{result.merge}^2") == commits[task]
        # the gates passed on what the branch was moved to, and that has this merge
        assert [(gate.gate, gate.passed) for gate in result.gates] == [("unit", True)]
        assert scene.workspaces.is_ancestor(result.merge, result.gates[0].commit)
        assert scene.workspaces.is_ancestor(result.gates[0].commit, INTEGRATION)


def test_every_state_of_the_branch_was_tested_and_moved_forward(scene: Scene) -> None:
    """The reflog of the branch names commits on which the gates have passed, each on top of the one before."""
    git(scene.root, "config", "core.logAllRefUpdates", "always")
    scene.rules["unit"] = lambda files: not {"t2.txt", "t5.txt"} & set(files)
    scene.land({f"t{n}": scene.work(f"t{n}", {f"t{n}.txt": "x"}) for n in range(8)})
    states = git(scene.root, "reflog", "show", "--format=%H", INTEGRATION).split()
    assert len(states) >= 3
    passed = {commit for commit, _ in scene.tested}
    assert set(states[:-1]) <= passed
    for newer, older in pairwise(states):
        assert git(scene.root, "merge-base", newer, older) == older
    assert scene.landed() == ["t0", "t1", "t3", "t4", "t6", "t7"]


def test_thirty_with_three_bad_ones_take_fewer_gate_runs_than_one_by_one(
    scene: Scene, figure: Callable[..., None]
) -> None:
    """Each bad one costs a search; all the others share their tests."""
    bad = {7, 18, 25}
    scene.rules["unit"] = lambda files: not {f"t{n}.txt" for n in bad} & set(files)
    waiting = {f"t{n}": scene.work(f"t{n}", {f"t{n}.txt": "x"}) for n in range(30)}
    returned: set[str] = set()
    while waiting:  # as the planner does it: sixteen at a time
        results = scene.land(dict(list(waiting.items())[:16]))
        returned |= {task for task, result in results.items() if result.kind == "gate_failed"}
        assert set(kinds(results).values()) <= {"merged", "gate_failed"}
        waiting = {task: commit for task, commit in waiting.items() if task not in results}
    assert returned == {f"t{n}" for n in bad}
    assert scene.landed() == [f"t{n}" for n in range(30) if n not in bad]
    runs = len(scene.tested)
    figure("landing", "gate runs that landed 27 of 30 and found 3 bad ones", runs, note="one by one: 30")
    assert runs < 30
    clean = Scene(scene.root.with_name("clean"))
    clean.rules["unit"] = lambda _files: True
    commits = {f"t{n}": clean.work(f"t{n}", {f"t{n}.txt": "x"}) for n in range(30)}
    assert set(kinds(clean.land(commits)).values()) == {"merged"}
    figure("landing", "gate runs that landed 30 of 30", len(clean.tested), note="in one batch; one by one: 30")
    assert len(clean.tested) == 1


def test_two_changes_of_one_line_lose_neither_side(scene: Scene) -> None:
    """The second comes back with both sides and the name of the first; brought in and settled it lands."""
    scene.rules["unit"] = lambda _files: True
    first = scene.work("A", {"story.txt": "one A\ntwo\nthree\n"})
    second = scene.work("B", {"story.txt": "one B\ntwo\nthree\n"})
    third = scene.work("C", {"c.txt": "c"})
    results = scene.land({"A": first, "B": second, "C": third})
    assert kinds(results) == {"A": "merged", "B": "conflict", "C": "merged"}
    report = results["B"].conflict
    assert report is not None
    assert (report.files, report.others) == (("story.txt",), ("A",))
    assert git(scene.root, "show", f"{report.integration}:story.txt") == "one A\ntwo\nthree"
    assert git(scene.root, "show", f"{second}:story.txt") == "one B\ntwo\nthree"
    assert scene.workspaces.is_ancestor(report.integration, INTEGRATION)
    request = WorkspaceRequest(
        name="B", base=scene.base, branch="coordination/task/B", commit=second, bring_in=report.integration
    )
    path = scene.workspaces.ensure(request)
    text = (path / "story.txt").read_text()
    assert "one A" in text
    assert "one B" in text
    (path / "story.txt").write_text("one A B\ntwo\nthree\n")
    trailers = {"Coordination-Task": "B"}
    settled = scene.workspaces.commit(path, "Settle", trailers, branch="coordination/task/B", base=scene.base)
    assert kinds(scene.land({"B": str(settled)})) == {"B": "merged"}
    assert git(scene.root, "show", f"{INTEGRATION}:story.txt") == "one A B\ntwo\nthree"


def test_who_conflicts_with_one_that_comes_back_lands(scene: Scene) -> None:
    """A conflict is one only with what has landed: B is in the way of C, but B breaks the gates."""
    scene.rules["unit"] = lambda files: "B" not in files["story.txt"]
    commits = {"A": scene.work("A", {"a.txt": "a"})}
    commits |= {name: scene.work(name, {"story.txt": f"one {name}\ntwo\nthree\n"}) for name in ("B", "C")}
    assert kinds(scene.land(commits)) == {"A": "merged", "B": "gate_failed", "C": "merged"}
    assert git(scene.root, "show", f"{INTEGRATION}:story.txt") == "one C\ntwo\nthree"


def test_each_lands_only_where_its_own_gates_passed_and_nobody_is_blamed_by_anothers(scene: Scene) -> None:
    """A asks for ``unit``, B for ``types``: what A breaks of ``types`` is found when B lands, as one by one."""
    scene.rules |= {"unit": lambda _files: True, "types": lambda files: not {"a.txt", "b.txt"} <= set(files)}
    commits = {name: scene.work(name, {f"{name.lower()}.txt": name}) for name in ("A", "B", "C")}
    results = scene.land(commits, gates={"A": ("unit",), "B": ("types",), "C": ("unit",)})
    assert kinds(results) == {"A": "merged", "B": "gate_failed", "C": "merged"}
    assert [gate.gate for gate in results["A"].gates] == ["unit"]
    top = results["C"].gates[0].commit
    assert (top, "unit") in scene.tested


def test_a_branch_that_fails_by_itself_sends_back_one_and_blames_no_other(scene: Scene) -> None:
    """What the target gained breaks the gates: the first is to look at it and takes the target in, the others wait."""
    scene.rules["unit"] = lambda files: "broken.txt" not in files
    commits = {name: scene.work(name, {f"{name}.txt": name}) for name in ("A", "B", "C", "D")}
    target = scene.commit("refs/heads/main", scene.rev("main"), {"broken.txt": "x"})
    results = scene.land(commits)
    assert kinds(results) == {"A": "gate_failed", "B": "left", "C": "left", "D": "left"}
    assert results["A"].conflict is not None
    assert (results["A"].conflict.others, results["A"].conflict.integration) == (("target",), target)
    assert scene.rev(INTEGRATION) == scene.base


def test_a_conflict_with_what_the_target_gained_names_the_target(scene: Scene) -> None:
    """It conflicts with the user's new commit and not with the branch: that commit is what is to be taken in."""
    commit = scene.work("A", {"story.txt": "one A\ntwo\nthree\n"})
    target = scene.commit("refs/heads/main", scene.rev("main"), {"story.txt": "one user\ntwo\nthree\n"})
    result = scene.land({"A": commit})["A"]
    assert result.conflict is not None
    assert (result.conflict.others, result.conflict.integration) == (("target",), target)
    assert result.conflict.files == ("story.txt",)


def test_the_targets_new_commits_are_taken_in_once_and_tested(scene: Scene) -> None:
    """Also those that come while the first gates run: they wait for the next landing, and nothing of them is lost."""
    scene.rules["unit"] = lambda files: "B.txt" not in files
    commits = {name: scene.work(name, {f"{name}.txt": name}) for name in ("A", "B", "C")}
    scene.commit("refs/heads/main", scene.rev("main"), {"user.txt": "1"})
    scene.meanwhile = lambda: scene.commit("refs/heads/main", scene.rev("main"), {"later.txt": str(len(scene.tested))})
    assert kinds(scene.land(commits)) == {"A": "merged", "B": "gate_failed", "C": "merged"}
    assert {"A.txt", "C.txt", "user.txt", "later.txt"} <= set(scene.files())
    assert (scene.rev(INTEGRATION), "unit") in scene.tested


def test_only_the_reviewed_commit_lands_whatever_the_branch_has_now(scene: Scene) -> None:
    """What was put on the task's branch after the review stays there."""
    scene.rules["unit"] = lambda _files: True
    commits = {name: scene.work(name, {f"{name}.txt": name}) for name in ("A", "B")}
    for name, commit in commits.items():
        scene.commit(f"refs/heads/coordination/task/{name}", commit, {f"{name}-later.txt": "not reviewed"})
    assert set(kinds(scene.land(commits)).values()) == {"merged"}
    assert scene.files() == ["A.txt", "B.txt", "story.txt"]


def test_one_that_has_landed_is_found_and_not_merged_again(scene: Scene) -> None:
    """Whoever died after the branch had moved: each merge is found by its second parent, and the rest lands."""
    scene.rules["unit"] = lambda _files: True
    commits = {name: scene.work(name, {f"{name}.txt": name}) for name in ("A", "B", "C")}
    first = scene.land({name: commits[name] for name in ("A", "C")})
    again = scene.land(commits)
    assert set(kinds(again).values()) == {"merged"}
    assert again["A"].merge == first["A"].merge
    assert again["C"].merge == first["C"].merge
    assert scene.landed() == ["A", "C", "B"]


def test_what_is_stopped_between_two_gates_keeps_what_landed_and_forgets_nobody(scene: Scene) -> None:
    """After so many gates it is told to stop: what is on the branch has passed, the rest is left for another time."""
    for stop_after in range(1, 8):
        one = Scene(scene.root.with_name(f"repo-{stop_after}"))
        one.rules["unit"] = lambda files: "t2.txt" not in files
        commits = {f"t{n}": one.work(f"t{n}", {f"t{n}.txt": "x"}) for n in range(5)}
        results = one.land(commits, stopping=lambda one=one, most=stop_after: len(one.tested) >= most)  # type: ignore[misc]
        assert one.landed() == [task for task in commits if results[task].kind == "merged"]
        assert one.landed() == [] or (one.rev(INTEGRATION), "unit") in one.tested
        assert set(results) == set(commits)
        rest = {task: commits[task] for task in commits if results[task].kind in ("left", "moved")}
        if rest:
            results |= one.land(rest)
        assert kinds(results) == {task: "gate_failed" if task == "t2" else "merged" for task in commits}


def test_a_branch_that_moves_under_the_gates_is_not_overwritten(scene: Scene) -> None:
    """Somebody's commit on top stays; the whole batch is landed again on top of it."""
    scene.rules["unit"] = lambda _files: True
    commits = {name: scene.work(name, {f"{name}.txt": name}) for name in ("A", "B")}
    ours = f"refs/heads/{INTEGRATION}"
    scene.meanwhile = lambda: scene.commit(ours, scene.rev(INTEGRATION), {"foreign.txt": "f"})
    assert kinds(scene.land(commits)) == {"A": "moved", "B": "moved"}
    scene.meanwhile = lambda: None
    assert kinds(scene.land(commits)) == {"A": "merged", "B": "merged"}
    assert set(scene.files()) == {"A.txt", "B.txt", "foreign.txt", "story.txt"}


@pytest.mark.parametrize("how", ["gone", "rewound", "checked out", "another name", "switched to meanwhile"])
def test_a_branch_that_must_not_be_moved_is_refused_and_left_as_it_is(scene: Scene, how: str) -> None:
    """It says what it found and what to run; neither the branch nor the user's own is touched."""
    scene.rules["unit"] = lambda _files: True
    scene.land({"A": scene.work("A", {"A.txt": "A"})})
    request = scene.request({"B": scene.work("B", {"B.txt": "B"})})
    match how:
        case "gone":
            git(scene.root, "update-ref", "-d", f"refs/heads/{INTEGRATION}")
        case "rewound":
            git(scene.root, "update-ref", f"refs/heads/{INTEGRATION}", scene.base)
        case "checked out":
            git(scene.root, "switch", "--quiet", INTEGRATION)
        case "another name":
            git(scene.root, "branch", "--quiet", "mine", INTEGRATION)
            git(scene.root, "symbolic-ref", f"refs/heads/{INTEGRATION}", "refs/heads/mine")
        case _:
            scene.meanwhile = lambda: git(scene.root, "switch", "--quiet", INTEGRATION)
    before = git(scene.root, "for-each-ref", "refs/heads/")
    with pytest.raises(BranchAstray, match=r"git branch|does not contain|switch --detach|symbolic-ref --delete"):
        scene.workspaces.land_batch(request, task="B", gates=scene.gates)
    assert git(scene.root, "for-each-ref", "refs/heads/") == before
    assert git(scene.root, "status", "--porcelain") == ""


def test_one_task_costs_no_more_calls_of_git_than_it_did(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """That several can land together is free for who lands alone: the calls are counted, and so are the gates."""
    scene.rules["unit"] = lambda _files: True
    scene.land({"A": scene.work("A", {"A.txt": "A"})})  # the workspace of landings is there from now on
    commit = scene.work("B", {"B.txt": "B"})
    request, calls, run = scene.request({"B": commit}), [], Git.run

    def counted(self: Git, *arguments: str, **options: object) -> object:
        calls.append(arguments[0])
        return run(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Git, "run", counted)
    scene.tested.clear()
    (scene.workspaces.path("A").parent / ".landing" / "built.txt").unlink()  # keeping that would cost more
    results = scene.workspaces.land_batch(request, task="B", gates=scene.gates)
    assert kinds(results) == {"B": "merged"}
    assert len(scene.tested) == 1
    assert len(calls) <= CALLS_BEFORE, calls
