"""Medusa heads for a model: data, training, calibration."""
