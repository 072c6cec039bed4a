"""The colors of a report: page, images and viewer; the page has lighter ones in dark mode.

A blue and a vermilion after Okabe and Ito, distinguishable with any color vision, dark enough for text on white.
"""

RIGHT, WRONG = "#00639c", "#b24300"
INK, QUIET, PAPER = "#1c2024", "#5b636b", "#ffffff"
