"""Claims jobs, runs the pipeline's steps, and deals with what fails."""
