"""Speaking policy: long texts, pieces, subtitles, and the demo voice."""
