"""Text in and out: prompts to tokens, tokens to text, where text stops."""
