"""Fine-tuning without a framework."""
