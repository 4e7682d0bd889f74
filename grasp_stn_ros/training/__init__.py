"""Training: targets, losses, the order of the stages, and the loop."""
