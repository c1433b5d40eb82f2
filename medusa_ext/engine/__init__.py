"""Models, sessions and the decoding loop."""
