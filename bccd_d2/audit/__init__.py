"""Audit of a data set: what is in it and which annotations look wrong, as an HTML page and as JSON.

``measure`` reads one image with its mask, ``issues`` finds what looks wrong in it, ``document`` puts all images
together, ``page`` shows them and ``run`` does one after the other.
"""
