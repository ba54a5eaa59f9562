"""What is wrong with a card, in sentences and numbers."""
