"""Run imports: take a turn, copy the rows, run the plan, release orphans, report."""
