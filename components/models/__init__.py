"""Where bases come from, what they are, and how they are loaded safely."""
