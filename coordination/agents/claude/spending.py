"""What did a run cost? Exact from a result, estimated from what was heard when there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordination.model.runs import Usage

JSON = Any

# US dollars a million tokens: input, output, cache read, cache write. Only for runs that died without a result.
PRICES = {
    "haiku": (0.10, 0.50, 0.01, 0.125),
    "sonnet": (2.0, 10.0, 0.10, 2.50),
    "opus": (4.0, 20.0, 0.20, 5.0),
    "fable": (8.0, 40.0, 0.20, 10.0),
}


class Spoken:
    """One message of the model, as far as it was heard; exact numbers come only with a result."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.usage: Mapping[str, JSON] = {}
        self.characters = 0

    @property
    def output_tokens(self) -> int:
        """At least what the stream's first event said, at least a token for every four characters."""
        return max(_count(self.usage, "output_tokens"), self.characters // 4)

    @property
    def input_tokens(self) -> int:
        """Everything that was read, from the cache or not."""
        return sum(
            _count(self.usage, key)
            for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        )

    @property
    def cost_usd(self) -> float:
        """By list price; an unknown model is taken for the dearest."""
        prices = next((price for name, price in PRICES.items() if name in self.model), max(PRICES.values()))
        counts = (
            _count(self.usage, "input_tokens"),
            self.output_tokens,
            _count(self.usage, "cache_read_input_tokens"),
            _count(self.usage, "cache_creation_input_tokens"),
        )
        return sum(count * price for count, price in zip(counts, prices, strict=True)) / 1_000_000


def _count(usage: Mapping[str, JSON], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) else 0


def estimated(messages: Sequence[Spoken]) -> Usage:
    """Return what messages cost that no result has accounted for."""
    return Usage(
        cost_usd=sum(spoken.cost_usd for spoken in messages),
        estimated=True,
        input_tokens=sum(spoken.input_tokens for spoken in messages),
        output_tokens=sum(spoken.output_tokens for spoken in messages),
    )


def billed(result: Mapping[str, JSON], messages: Sequence[Spoken]) -> Usage:
    """Return what a result says was spent since the one before; totals count earlier runs of a session too."""
    models = result.get("model_usage_since_last_result")
    if not isinstance(models, dict):
        return estimated(messages)
    spent = [entry for entry in models.values() if isinstance(entry, dict)]
    inputs = ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    return Usage(
        cost_usd=sum(float(entry.get("costUSD") or 0.0) for entry in spent),
        estimated=any(entry.get("costBasis") == "unknown" for entry in spent),
        input_tokens=sum(_count(entry, key) for entry in spent for key in inputs),
        output_tokens=sum(_count(entry, "outputTokens") for entry in spent),
    )


def total(one: Usage, other: Usage) -> Usage:
    """Add up two bills."""
    return Usage(
        cost_usd=one.cost_usd + other.cost_usd,
        estimated=one.estimated or other.estimated,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
    )
