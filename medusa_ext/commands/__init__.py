"""The subcommands of `medusa-ext`, one module each; see `medusa_ext.cli.build_parser`."""
