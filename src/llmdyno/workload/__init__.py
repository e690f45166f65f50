"""What is asked: prompts, data sets, sessions, traces."""
