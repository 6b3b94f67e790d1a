"""What did it cost: by day against the caps, by role and by model, and which tasks most?"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from coordination.report.charts import Series, bars, stacked_bars
from coordination.report.markup import el
from coordination.report.wording import Row, coloured, figure, table, usd, who


def money(found: Row) -> list[Element | None]:
    """The sums, and where they went."""
    shown, sums = found["money"], found["status"]["money"]
    told = [
        f"{usd(sums['spent_usd'], estimated=sums['estimated'])} spent since the beginning"
        + (f" of at most {usd(sums['caps']['total_usd'])}" if sums["caps"]["total_usd"] is not None else ""),
        f"{usd(sums['today_usd'])} today"
        + (f" of at most {usd(sums['caps']['day_usd'])}" if sums["caps"]["day_usd"] is not None else ""),
        f"{usd(sums['promised_usd'])} promised to runs under way",
    ]
    if sums["a_merged_task_usd"] is not None:
        each = usd(sums["a_merged_task_usd"], estimated=sums["a_merged_task_estimated"])
        told.append(f"a merged task cost {each} on average")
    head = el("p", "; ".join(told) + ".")
    if not shown["by_role"]:
        return [head, el("p", "Nothing was spent in this time.", class_="soft")]
    colours = coloured(each["name"] for each in shown["by_role"])
    return [head, _days(shown, sums, colours), _shares(shown, colours), *_dearest(shown)]


def _days(shown: Row, sums: Row, colours: dict[str, str]) -> Element | None:
    roles = sorted({role for day in shown["days"] for role in day["by_role"]})
    series = [Series(name=role, colour=coloured(colours)[role]) for role in roles]
    heads = [(_short(day["day"]), day["day"]) for day in shown["days"]]
    cap = sums["caps"]["day_usd"]
    caption = "US dollars a day, by role" + (
        f"; {usd(shown['earlier_usd'])} of earlier days are not drawn" if shown["earlier_usd"] else ""
    )
    drawn = stacked_bars(
        caption,
        heads,
        [day["by_role"] for day in shown["days"]],
        series,
        told=lambda value: f"{value:,.2f}",
        cap=(cap, f"cap of {usd(cap)} a day") if cap is not None else None,
    )
    return figure(caption, drawn, series)


def _short(day: str) -> str:
    """A day without its year, as it stands below a bar."""
    return day[5:]


def _shares(shown: Row, colours: dict[str, str]) -> Element:
    caps = shown["role_caps_usd"]
    by_role = [
        (
            each["name"] + (f" (cap {caps[each['name']]:.2f} a day)" if each["name"] in caps else ""),
            usd(each["usd"]),
            [(Series(name=each["name"], colour=colours[each["name"]]), each["usd"])],
        )
        for each in shown["by_role"]
    ]
    by_model = [
        (each["name"], usd(each["usd"]), [(Series(name=each["name"], colour="slate"), each["usd"])])
        for each in shown["by_model"]
    ]
    return el(
        "div",
        figure("By role", bars("Cost by role", by_role), wide=False),
        figure("By model", bars("Cost by model", by_model), wide=False),
        class_="two",
    )


def _dearest(shown: Row) -> list[Element]:
    rows = [(who(task), task["state"].replace("_", " "), task["runs"], usd(task["usd"])) for task in shown["dearest"]]
    cells = [[el("span", who), state, str(runs), cost] for who, state, runs, cost in rows]
    return [el("h3", "The dearest tasks of all time"), table(("task", "state", "runs", "cost"), cells, (2, 3))]
