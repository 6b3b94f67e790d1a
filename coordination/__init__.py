"""Which release is this? A coordinator for parallel Claude Code instances: files in, reviewed commits out."""

__version__ = "0.1.0"
