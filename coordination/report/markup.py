"""How does text become a page that nobody's text can change? As a tree of elements, which is written out in one place.

Every text and every value of an attribute is escaped by the writer and was made plain before; tags and names of
attributes are ours. The page asks for nothing: its policy forbids scripts, frames, forms and every request, and allows
the one style sheet by its digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from coordination.printable import plain

Child = Element | str | None
Value = str | float


def el(tag: str, *children: Child | Iterable[Child], **attributes: Value | None) -> Element:
    """An element; what is None is left out. ``class_`` is class, ``text_anchor`` is text-anchor."""
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(
                name.rstrip("_").replace("_", "-"), number(value) if not isinstance(value, str) else plain(value)
            )
    for child in children:
        for part in [child] if child is None or isinstance(child, str | Element) else child:
            _add(element, part)
    return element


def _add(element: Element, child: Child) -> None:
    if isinstance(child, Element):
        element.append(child)
    elif child is not None and len(element):
        element[-1].tail = (element[-1].tail or "") + plain(child)
    elif child is not None:
        element.text = (element.text or "") + plain(child)


def number(value: float) -> str:
    """A number as short as a picture needs it."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def document(title: str, style: str, body: Iterable[Child]) -> str:
    """A whole page of its own. ``style`` is trusted, everything else is not."""
    assert "<" not in style, "a style sheet is written as it is, so nothing in it may look like a tag"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", **{"http-equiv": "Content-Security-Policy"}, content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", style),
    )
    page = el("html", head, el("body", body), lang="en")
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
