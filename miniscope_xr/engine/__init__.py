"""What xarray sees: lazy arrays, coordinates, the time index."""
