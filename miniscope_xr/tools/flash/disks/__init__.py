"""The disks of this computer, and which of them may be a card."""
