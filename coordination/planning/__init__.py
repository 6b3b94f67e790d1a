"""The brain: state and facts in, events out. Pure."""
