"""What happened here? The log as one page for people, and as numbers. Pure: records in, text out."""

from __future__ import annotations

from coordination.report.chronicle import Chronicle
from coordination.report.figures import gather
from coordination.report.page import page

__all__ = ["Chronicle", "gather", "page"]
