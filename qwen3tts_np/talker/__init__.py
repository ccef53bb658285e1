"""The Qwen3 talker: its layers, the code predictor, and the sampling of codes."""
