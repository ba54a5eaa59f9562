"""From runs of buffers to frames: the frame axis, cutting pixels out of buffers, header values."""
