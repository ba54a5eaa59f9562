"""A card as an image: all of it up to where its recordings end, or what is left of them (``rescue``)."""
