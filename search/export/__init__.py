"""Export of a front's member to a folder that runs without this project: weights, programs, preprocessing, card."""
