"""Labelled RGB-D frames: readers, one sample type, augmentation."""
