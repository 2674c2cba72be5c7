"""A run of a study, by one worker or by several side by side on this machine."""
