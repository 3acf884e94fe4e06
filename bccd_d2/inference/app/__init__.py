"""A page that finds the cells of the fields of a smear, and lets people correct them (extra ``app``)."""
