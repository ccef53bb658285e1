"""Reporting: tables, HTML pages, SVG pictures, and plots with matplotlib."""
