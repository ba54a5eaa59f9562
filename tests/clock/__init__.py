"""One clock."""
