"""Documents of an application: handed in, read by machine, and compared with what the applicant stated."""
