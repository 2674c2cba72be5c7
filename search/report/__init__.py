"""What people read of a study: the terminal, the plots, and why a trial ended as it did."""
