"""Which numbers does the report show? Rows of plain values, each list bounded, with what was left out of it."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from coordination import views
from coordination.model.events import Evidence
from coordination.model.experience import lasted
from coordination.model.facts import Facts
from coordination.model.money import day_of
from coordination.model.runs import GateResult, Purpose
from coordination.model.state import Run, State, Task
from coordination.model.tasks import Status
from coordination.policy import Policies
from coordination.report.chronicle import Band, Chronicle, named
from coordination.report.reasons import REASONS, grouped

Row = dict[str, Any]

BARS_MAX = 3_000
LANES_MAX = 32
BINS_MAX = 48
DAYS_MAX = 62
NAMES_MAX = 12
ASKING_MAX = 12
LANDED_MAX = 150
REJECTED_MAX = 20
FINDINGS_MAX = 6
EXAMPLES_MAX = 3
DEAREST_MAX = 10
BANDS_MAX = 200
TEXT_MAX = 400
_JOINED = 6.0

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_WIDTHS = (
    *(_MINUTE * n for n in (1, 5, 15, 30)),
    *(_HOUR * n for n in (1, 3, 6, 12)),
    *(_DAY * n for n in (1, 7, 28, 91, 364)),
)


def gather(chronicle: Chronicle, state: State, facts: Facts, policies: Policies, *, seq: int, started: int = 0) -> Row:
    """Everything the page shows. ``chronicle`` has folded to batch ``seq``, begun with the snapshot at ``started``.

    Instants are seconds since the epoch, sums US dollars; days are days of UTC.
    """
    status = views.status(state, facts, policies, seq=seq, supervisor={})
    end = _end(chronicle, state, facts)
    chronicle.close(state, end)
    start = min(chronicle.first_at if chronicle.first_at is not None else end, end)
    return {
        "window": {
            "since_seq": chronicle.since_seq or None,
            "first_seq": chronicle.first_seq or None,
            "seq": seq,
            "start": start,
            "end": end,
            "taken_away": started,
        },
        "status": {
            key: status[key] for key in ("counts", "paused", "merged", "cost_usd", "money", "limits", "warnings")
        },
        "slots": status["slots"],
        "needs_person": _first(status["needs_person"], ASKING_MAX),
        "totals": _totals(chronicle, state),
        "timeline": _timeline(chronicle, state, facts, start, end),
        "throughput": _throughput(chronicle, start, end),
        "waiting": _waiting(chronicle, state, facts, status),
        "money": _money(chronicle, state, facts),
        "endings": _endings(chronicle),
        "reviews": _reviews(chronicle, state),
        "landed": _landed(chronicle, state),
    }


def _end(chronicle: Chronicle, state: State, facts: Facts) -> float:
    """Until now, if anything is still open or now was asked for; else the last that happened."""
    asked = chronicle.since_time is not None or not chronicle.last_at
    return max(chronicle.last_at, facts.now) if asked or state.open else chronicle.last_at


def _first(rows: Sequence[Any], most: int) -> Row:
    return {"rows": list(rows[:most]), "more": max(0, len(rows) - most)}


def _text(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


# ---- at a glance -----------------------------------------------------------------------------------------------------


def _totals(chronicle: Chronicle, state: State) -> Row:
    """What happened in the stretch, and how long what arrived in it had taken."""
    ends = Counter(str(status) for _, status in chronicle.ended)
    took = sorted(at - state.tasks[task].submitted_at for task, at in chronicle.arrived.items())
    return {
        "submitted": len(chronicle.submitted),
        "ended": dict(sorted(ends.items())),
        "spent_usd": round(sum(paid.usd for paid in chronicle.payments), 6),
        "estimated": any(paid.estimated for paid in chronicle.payments),
        "median_seconds": max(0.0, took[(len(took) - 1) // 2]) if took else None,
    }


# ---- the timeline ----------------------------------------------------------------------------------------------------


def _timeline(chronicle: Chronicle, state: State, facts: Facts, start: float, end: float) -> Row:
    """Runs in lanes, a lane a slot. Runs too short or too close to be told apart are one bar."""
    spans = [span for task in state.tasks.values() for run in task.runs if (span := _span(run, start, end))]
    lanes = _lanes(spans)
    shown = lanes[:LANES_MAX]
    apart = max((end - start) / 2_000, 0.001)
    drawn = [(name, _joined(lane, apart)) for name, lane in shown]
    while sum(len(joined) for _, joined in drawn) > BARS_MAX:
        apart *= 1.5
        drawn = [(name, _joined(lane, apart)) for name, lane in shown]
    bands = [_band(band) for band in chronicle.bands if (band.end or end) >= start]
    roles = {name for name, _ in lanes}
    return {
        "runs": len(spans),
        "lanes": [{"role": name, "bars": [_bar(state, bar) for bar in bars]} for name, bars in drawn],
        "joined": sum(len(bar) for _, bars in drawn for bar in bars if len(bar) > 1),
        "apart_seconds": apart,
        "lanes_left_out": len(lanes) - len(shown),
        "slots": {role: facts.slots(role) for role in sorted(roles) if role in facts.roles},
        "bands": _first(bands, BANDS_MAX),
    }


Span = tuple[float, float, Run]


def _span(run: Run, start: float, end: float) -> Span | None:
    begun = run.started_at or run.planned_at
    ended = max(begun, run.ended_at) if run.outcome is not None else max(begun, end)
    return (max(begun, start), min(ended, end), run) if begun <= end and ended >= start else None


def _lanes(spans: Iterable[Span]) -> list[tuple[str, list[Span]]]:
    """Each run in the first lane of its role that is free: as many lanes as there were at once."""
    by_role: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        by_role[span[2].role or str(span[2].purpose)].append(span)
    lanes = []
    for role in sorted(by_role, key=_rank):
        free: list[tuple[float, int]] = []
        of_role: list[list[Span]] = []
        for span in sorted(by_role[role], key=lambda span: (span[0], span[1], span[2].token)):
            if free and free[0][0] <= span[0]:
                _, lane = heapq.heappop(free)
            else:
                lane = len(of_role)
                of_role.append([])
            of_role[lane].append(span)
            heapq.heappush(free, (span[1], lane))
        lanes += [(role, lane) for lane in of_role]
    return lanes


_FIRST, _LAST = ("blue", "green", "red"), ("gate", "landing")


def _rank(role: str) -> tuple[int, str]:
    """In the order in which a task meets them: who searches, who works, who reviews; gates and landings last."""
    if role in _FIRST:
        return _FIRST.index(role), role
    return 10 + (_LAST.index(role) if role in _LAST else -1), role


def _joined(lane: Sequence[Span], apart: float) -> list[list[Span]]:
    """Neighbours that nobody could tell apart, in pieces of at most a few times that length."""
    bars: list[list[Span]] = []
    for span in lane:
        short = bars and span[1] - span[0] < apart and bars[-1][-1][1] - bars[-1][-1][0] < apart
        if short and span[0] - bars[-1][-1][1] < apart and span[1] - bars[-1][0][0] < _JOINED * apart:
            bars[-1].append(span)
        else:
            bars.append([span])
    return bars


def _bar(state: State, bar: Sequence[Span]) -> Row:
    first = bar[0][2]
    row: Row = {"start": bar[0][0], "end": max(span[1] for span in bar), "runs": len(bar)}
    if len(bar) > 1:
        return row | {"bad": sum(_bad(run) for _, _, run in bar), "live": False}
    return row | {
        "run": first.id,
        "title": _text(state.tasks[first.task].spec.title),
        "model": first.model,
        "batch": len(first.batch),
        "ending": named(first)[0] if first.outcome is not None else "",
        "usd": first.outcome.usage.cost_usd if first.outcome is not None else 0.0,
        "bad": int(_bad(first)),
        "live": first.live,
    }


def _bad(run: Run) -> bool:
    return run.outcome is not None and named(run)[0] not in ("done", "stopped")


def _band(band: Band) -> Row:
    return {"kind": band.kind, "said": _text(band.said), "start": band.start, "end": band.end}


# ---- throughput and waiting ------------------------------------------------------------------------------------------


def _throughput(chronicle: Chronicle, start: float, end: float) -> Row:
    """How many tasks came and ended in each of at most ``BINS_MAX`` + 1 equal pieces of the stretch."""
    width = next((width for width in _WIDTHS if (end - start) / width <= BINS_MAX), (end - start) / BINS_MAX)
    first = int(start // width)
    bins: list[Row] = [
        {"start": (first + number) * width, "submitted": 0, "ended": {}}
        for number in range(int(end // width) - first + 1)
    ]
    for at in chronicle.submitted:
        bins[_place(at, width, first, bins)]["submitted"] += 1
    for at, status in chronicle.ended:
        ends = bins[_place(at, width, first, bins)]["ended"]
        ends[str(status)] = ends.get(str(status), 0) + 1
    return {"width_seconds": width, "bins": bins}


def _place(at: float, width: float, first: int, bins: Sequence[Row]) -> int:
    return min(max(int(at // width) - first, 0), len(bins) - 1)


def _waiting(chronicle: Chronicle, state: State, facts: Facts, status: Row) -> Row:
    """What tasks waited for over time, and what they wait for now, with the sentences that status shows."""
    says = {row["task"]: "; ".join(row["waiting"]) for row in [*status["waiting"], *status["needs_person"]]}
    now = grouped(state, facts, facts.now)
    return {
        "samples": [{"at": at, "counts": dict(counts)} for at, counts in chronicle.samples],
        "now": [
            {
                "reason": reason,
                "tasks": len(now[reason]),
                "examples": [
                    {"task": task.id, "title": _text(task.spec.title), "says": _text(says.get(task.id, ""))}
                    for task in now[reason][:EXAMPLES_MAX]
                ],
            }
            for reason in REASONS
            if reason in now
        ],
    }


# ---- money -----------------------------------------------------------------------------------------------------------


def _money(chronicle: Chronicle, state: State, facts: Facts) -> Row:
    days: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    by_role, by_model = defaultdict[str, float](float), defaultdict[str, float](float)
    for paid in chronicle.payments:
        role = paid.role or "none"
        days[day_of(paid.at)][role] += paid.usd
        by_role[role] += paid.usd
        by_model[paid.model or "unknown"] += paid.usd
    shown = _calendar(days)
    earlier = sum(sum(days[day].values()) for day in days if day not in shown)
    caps = {name: found.day_usd for name, found in facts.settings.roles.items() if found.day_usd is not None}
    return {
        "days": [{"day": day, "by_role": _rounded(days[day])} for day in shown],
        "earlier_usd": round(earlier, 6),
        "by_role": _largest(by_role),
        "by_model": _largest(by_model),
        "role_caps_usd": caps,
        "dearest": _dearest(state),
    }


def _calendar(days: Iterable[str]) -> list[str]:
    """From the first day on which anything was spent to the last, none left out; at most the newest so many."""
    known = sorted(days)
    if not known:
        return []
    last = date.fromisoformat(known[-1])
    first = max(date.fromisoformat(known[0]), last - timedelta(days=DAYS_MAX - 1))
    return [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]


def _rounded(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: round(usd, 6) for name, usd in sorted(sums.items())}


def _largest(sums: Mapping[str, float]) -> list[Row]:
    """The largest, and what all others are together."""
    ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    rows = [{"name": name, "usd": round(usd, 6)} for name, usd in ranked[:NAMES_MAX]]
    rest = ranked[NAMES_MAX:]
    return [*rows, {"name": f"{len(rest)} others", "usd": round(sum(usd for _, usd in rest), 6)}] if rest else rows


def _dearest(state: State) -> list[Row]:
    costs = ((task.usage.cost_usd, task) for task in state.tasks.values())
    found = heapq.nlargest(DEAREST_MAX, costs, key=lambda pair: (pair[0], -pair[1].seq, -pair[1].index))
    return [_named(task) | {"usd": round(usd, 6), "runs": len(task.runs)} for usd, task in found if usd]


def _named(task: Task) -> Row:
    return {"task": task.id, "title": _text(task.spec.title), "state": str(task.status)}


# ---- endings, reviews, landings --------------------------------------------------------------------------------------


def _endings(chronicle: Chronicle) -> Row:
    """How runs ended that did not succeed, and what was done about them."""
    count, usd, says = Counter[str](), defaultdict[str, float](float), dict[str, str]()
    for each in chronicle.misfortunes:
        count[each.kind] += 1
        usd[each.kind] += each.usd
        says[each.kind] = each.says
    done: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (kind, remedy), times in sorted(chronicle.remedies.items(), key=lambda item: (-item[1], item[0])):
        done[kind][remedy] = times
    for kind, times in chronicle.unanswered.items():
        done[kind]["not decided yet"] = times
    kinds = [
        {"kind": kind, "says": says[kind], "runs": runs, "usd": round(usd[kind], 6), "remedies": done[kind]}
        for kind, runs in sorted(count.items(), key=lambda item: (-item[1], item[0]))
    ]
    return {"runs": count.total(), "usd": round(sum(usd.values()), 6), "kinds": kinds}


def _reviews(chronicle: Chronicle, state: State) -> Row:
    verdicts, severities, rounds = Counter[str](), Counter[str](), Counter[int]()
    for _, run in chronicle.reviews:
        assert run.outcome is not None
        verdicts[_verdict(run) or "none"] += 1
        severities.update(finding.severity for finding in run.outcome.findings)
    for task in (state.tasks[name] for name in chronicle.arrived):
        verdicts_of_task = [_verdict(run) for run in task.runs if run.outcome and run.purpose is Purpose.REVIEW]
        if verdicts_of_task:
            rounds[verdicts_of_task.count("reject")] += 1
    rejected = [(at, run) for at, run in reversed(chronicle.reviews) if _verdict(run) == "reject"]
    return {
        "runs": len(chronicle.reviews),
        "verdicts": dict(sorted(verdicts.items())),
        "findings": dict(sorted(severities.items())),
        "rounds": {str(number): rounds[number] for number in sorted(rounds)},
        "without": sum(1 for task in chronicle.arrived if _spared(state.tasks[task])),
        "rejected": _first([_rejection(state, at, run) for at, run in rejected[: REJECTED_MAX + 1]], REJECTED_MAX)
        | {"more": max(0, len(rejected) - REJECTED_MAX)},
    }


def _verdict(run: Run) -> str:
    """What it said of the commit that it was asked about; "" when that counts for nothing."""
    return run.verdict_on(run.commit)


def _spared(task: Task) -> bool:
    """Whether it landed without a review."""
    return task.status is Status.MERGED and (task.evidence is None or not task.evidence.reviewer)


def _rejection(state: State, at: float, run: Run) -> Row:
    assert run.outcome is not None
    findings = [
        {"severity": found.severity, "file": _text(found.file), "line": found.line, "message": _text(found.message)}
        for found in run.outcome.findings
    ]
    return _named(state.tasks[run.task]) | {
        "run": run.id,
        "at": at,
        "model": run.outcome.model or run.model,
        "says": _text(run.outcome.report or run.outcome.reason),
        "findings": _first(findings, FINDINGS_MAX),
    }


def _landed(chronicle: Chronicle, state: State) -> Row:
    newest = sorted(chronicle.arrived.items(), key=lambda item: (-item[1], item[0]))
    writers = [(state.tasks[name], at) for name, at in newest if state.tasks[name].status is Status.MERGED]
    readers = [(state.tasks[name], at) for name, at in newest if state.tasks[name].status is Status.DONE]
    return {
        "merged": _counted(state, writers),
        "done": _counted(state, readers),
        "seconds": _parts(task for task, _ in [*writers, *readers]),
    }


def _counted(state: State, tasks: Sequence[tuple[Task, float]]) -> Row:
    rows = [_arrival(state, task, at) for task, at in tasks[:LANDED_MAX]]
    return {"tasks": len(tasks), "rows": rows, "more": len(tasks) - len(rows)}


def _arrival(state: State, task: Task, at: float) -> Row:
    evidence = task.evidence or Evidence(commit=task.commit)
    runs = reversed(views.runs_of(state, task))  # with the landings of others that took it along
    landing = next((run.outcome for run in runs if run.purpose is Purpose.LANDING and run.outcome is not None), None)
    gates = landing.gates if landing is not None and landing.gates else evidence.gates
    return _named(task) | {
        "at": at,
        "seconds": max(0.0, at - task.submitted_at),
        "usd": round(task.usage.cost_usd, 6),
        "estimated": task.usage.estimated,
        "commit": evidence.commit,
        "merge": task.merge,
        "gates": [_gate(gate) for gate in gates],
        "gates_configured": evidence.gates_configured,
        "reviewer": evidence.reviewer,
        "person": evidence.person,
        "reviewed_with": next((run.model for run in task.runs if run.id == evidence.reviewer), ""),
        "verdict": evidence.verdict,
        "reason": _text(evidence.reason),
        "files": evidence.files,
        "insertions": evidence.insertions,
        "deletions": evidence.deletions,
        "cited": len(evidence.cited),
        "rejections": sum(1 for run in task.runs if _verdict(run) == "reject"),
    }


def _gate(found: GateResult) -> Row:
    known = {"gate": found.gate, "passed": found.passed, "commit": found.commit}
    return known | {"flaky": found.flaky, "cached": found.cached or None}


def _parts(tasks: Iterable[Task]) -> Row:
    """Where the time of what arrived went: the runs by purpose, and what was left of it."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for task in tasks:
        whole = max(0.0, task.changed_at - task.submitted_at)
        runs = 0.0
        for run in task.runs:
            lasting = lasted(run)
            seconds[str(run.purpose)] += lasting
            runs += lasting
        seconds["waiting"] += max(0.0, whole - runs)
    return {name: round(value, 3) for name, value in seconds.items()}
