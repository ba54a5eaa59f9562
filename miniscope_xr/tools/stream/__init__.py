"""What every output shares: frames in batches, times, files that are whole or not there."""
