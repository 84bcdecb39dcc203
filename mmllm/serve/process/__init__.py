"""What runs the application: a process with bounds and a drain, and the supervisor of several."""
