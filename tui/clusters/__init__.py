"""Control planes: how they are reached, read, changed and put back. Knows no screen."""
