"""Colours of plots: Okabe and Ito's palette for colour-blind readers."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
GREY = "#9A9A9A"
