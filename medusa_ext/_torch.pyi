"""The operators' native module: registers torch.ops.medusa.*, and has no names of its own.

torch must have been imported before.
"""
