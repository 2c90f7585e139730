"""What several test files build: tiny checkpoints, banks, runs, disguised texts."""
