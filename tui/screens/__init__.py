"""What is seen, a file a screen."""
