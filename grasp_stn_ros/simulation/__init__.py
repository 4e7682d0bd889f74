"""Simulated table, camera and gripper in MuJoCo: the source of labels and of the demo."""
