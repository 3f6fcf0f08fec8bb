"""Pages of docs/ that a user follows, run as printed."""
