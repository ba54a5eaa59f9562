"""Where the bytes of a card come from: an image, a block device, a server."""
