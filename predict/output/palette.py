"""The colors of a report, on the page, in its images and in the viewer; the page has lighter ones in the dark.

A blue and a vermilion after Okabe and Ito, which every kind of color vision tells apart, dark enough for text on white.
"""

RIGHT, WRONG = "#00639c", "#b24300"
INK, QUIET, PAPER = "#1c2024", "#5b636b", "#ffffff"
