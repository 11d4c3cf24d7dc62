"""What a run can do, one file per file of conf/task."""
