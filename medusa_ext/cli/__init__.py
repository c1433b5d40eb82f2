"""The `medusa-ext` program: its commands, one module each."""
