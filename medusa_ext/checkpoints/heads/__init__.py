"""Medusa heads in every published layout."""
