"""What is known and what may follow: tasks, runs, events, state, commands. Pure values and functions."""
