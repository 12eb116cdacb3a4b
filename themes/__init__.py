"""One YAML file a theme; the format is described in `tui/theming.py`."""
