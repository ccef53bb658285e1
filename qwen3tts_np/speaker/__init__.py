"""Speaker encoder: a reference clip to one embedding."""
