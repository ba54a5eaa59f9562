"""Which frame lives where on a card, from the evidence of its headers."""
