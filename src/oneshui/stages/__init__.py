"""One function from files to files per rule of the workflow; the only wiring of the package."""
