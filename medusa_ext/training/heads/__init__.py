"""Training of heads: the modules, the trainer, its files."""
