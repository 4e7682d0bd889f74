"""What `grasp_stn doctor` looks at: findings, the machine, and what a camera sends."""
