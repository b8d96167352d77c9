"""Figures that stand in a page: drawn with matplotlib, written as SVG."""
