"""What a detector saw and decided, in a viewer: sources of frames, the scene, the browser."""
