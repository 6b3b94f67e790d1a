"""What may a run see of our environment? Built from a list, never inherited."""

from __future__ import annotations

from collections.abc import Collection, Mapping

CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
COPIED = (
    *CREDENTIALS,
    "ANTHROPIC_BASE_URL",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "TZ",
)
MARKER = "COORDINATION_RUN"
"""Carried by every process of a run: finds those that escaped, and keeps a person's verbs out of agents' hands."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build(
    source: Mapping[str, str], passed: Collection[str], *, home: str, scratch: str, marker: str
) -> dict[str, str]:
    """The environment of a run: what we set, what the contract copies if set, what the settings pass by name."""
    copied = {name: source[name] for name in (*COPIED, *passed) if source.get(name)}
    return copied | {
        "HOME": home,
        "TMPDIR": scratch,
        "PATH": source.get("PATH") or _PATH,
        "LANG": source.get("LANG") or "C.UTF-8",
        MARKER: marker,
    }


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The same for code that agents wrote: nothing in it can spend money."""
    return {name: value for name, value in environment.items() if not name.startswith(("ANTHROPIC_", "CLAUDE_"))}


def secrets(environment: Mapping[str, str], passed: Collection[str]) -> list[str]:
    """What no text that leaves may hold: keys, logins, and what the settings pass to runs."""
    return [environment[name] for name in (*CREDENTIALS, *passed) if environment.get(name)]


def signed_in(environment: Mapping[str, str]) -> bool:
    """Whether there is a key, a login, or an address that stands for a gateway and may need neither."""
    return any(environment.get(name) for name in (*CREDENTIALS, "ANTHROPIC_BASE_URL"))
