"""A lab's day: every card copied, checked, reported and exported into one folder, and on from where it stopped."""
