"""The report of an evaluation: tables, figures and one page that needs nothing but itself."""
