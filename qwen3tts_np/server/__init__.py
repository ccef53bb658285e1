"""Speech over HTTP and WebSocket: many answers at once from one model. Start with README.md of this folder."""
