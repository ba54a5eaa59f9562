"""One clock: when, by another clock, every frame of a recording was taken."""
