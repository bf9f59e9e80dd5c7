"""What happens when in a training: hooks, schedules, parameter groups."""
