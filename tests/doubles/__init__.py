"""Stand-ins for what a control plane would do: senders of spans."""
