"""``python -m qwen3tts_np``."""

from .cli import main

raise SystemExit(main())
