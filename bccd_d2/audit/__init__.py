"""An audit of a data set: what is in it, what is doubtful about it, as a page for people and as JSON.

``measure`` reads one image with its mask, ``verdicts`` says what is doubtful in it, ``document`` puts all of them
together, ``page`` shows it and ``run`` does one after the other.
"""
