"""Figures, tables, overlays and HTML reports."""
