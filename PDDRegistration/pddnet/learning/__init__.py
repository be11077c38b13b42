"""Learning to register: what can be trained, on what, and how."""
