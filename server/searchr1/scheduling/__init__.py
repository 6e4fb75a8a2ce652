"""Who may start, which turn goes first, on which replica: a pure state machine over runs, footprints and replicas."""
