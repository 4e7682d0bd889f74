"""Multi-stage spatial transformer network for grasp detection (Park & Chun 2018)."""

__version__ = '0.1.0'
