"""Flow matching, noise schedules, solvers and guidance."""
