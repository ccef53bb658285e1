"""Speaker encoder: from a reference clip to one embedding."""
