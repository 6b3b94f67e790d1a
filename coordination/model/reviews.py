"""What does a reviewer answer? The schema it must keep to, and how its answer is read.

A malformed verdict is not an approval: ``parse`` raises instead of guessing. The schema asks for the commit and does
not say it: a reviewer that looked at another one shall be found out, not corrected until it says the right name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from coordination.model.runs import Finding, Value

REVIEW_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["commit", "verdict", "summary", "findings"],
    "properties": {
        "commit": {
            "type": "string",
            "pattern": "^[0-9a-f]{40,64}$",
            "description": "The full name of the commit that you judged.",
        },
        "verdict": {"type": "string", "enum": ["approve", "reject"]},
        "summary": {"type": "string", "description": "Why, in a few sentences."},
        "findings": {
            "type": "array",
            "description": "Every defect that was found, worst first; empty when there is none.",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["message", "severity"],
                "properties": {
                    "file": {"type": "string", "description": "Path from the top of the repository."},
                    "line": {"type": "integer", "minimum": 0},
                    "severity": {"type": "string", "enum": ["blocker", "major", "minor"]},
                    "message": {"type": "string", "description": "What is wrong, and what would be right."},
                },
            },
        },
    },
}


class Review(Value):
    """A reviewer's answer."""

    commit: str
    verdict: Literal["approve", "reject"]
    summary: str = ""
    findings: tuple[Finding, ...] = ()


def parse(answer: Any) -> Review:
    """Read an answer that was made to ``REVIEW_SCHEMA``. Raises ValueError, saying where, for any other."""
    return msgspec.convert(answer, Review)
