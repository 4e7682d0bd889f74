"""Labels on people's own images: import, a page to draw them, files in Cornell's format."""
