"""When things happen in a training: hooks, schedules, parameter groups."""
