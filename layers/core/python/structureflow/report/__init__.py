"""The report page of a job, its pictures and plots."""
