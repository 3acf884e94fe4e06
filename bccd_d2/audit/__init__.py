"""Audit of a data set: what is in it and which annotations look wrong, as an HTML page and as JSON."""
