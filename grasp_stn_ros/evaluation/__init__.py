"""Measurements: rectangle accuracy and lifts."""
