"""Split learning itself: clients, the server, schedules, checkpoints."""
