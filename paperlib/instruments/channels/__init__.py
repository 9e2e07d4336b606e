"""What one channel of a VGG network carries."""
