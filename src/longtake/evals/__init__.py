"""What can be measured of a take."""
