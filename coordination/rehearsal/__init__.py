"""How is everything tried on the real Claude Code without key, network or cost? A loopback model plays scripts."""
