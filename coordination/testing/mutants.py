"""Which rules does the log's protocol live by, and does the laboratory notice when one of them is gone?

Every mutant takes one rule away from the kernel. ``python -m coordination.testing.mutants NAME`` runs the laboratory's
searches against it, in a process of its own, and prints which of them caught it and how::

    python -m coordination.testing.mutants                    the list
    python -m coordination.testing.mutants NAME               exit 0: caught, 1: survived, 2: its text is not there
    python -m coordination.testing.mutants none               the kernel as it is: must survive, or a search is wrong

A mutant that nothing can catch, because what it takes away is only a second net or only speed, stands in ``SURVIVORS``
with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

Search = Callable[[int], str | None]  # given a seed, says what it found wrong; None: nothing

NONE = "none"
_HANGING_SECONDS = 120
