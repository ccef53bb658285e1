"""Audio in and out: files, sample rates, waveforms."""
