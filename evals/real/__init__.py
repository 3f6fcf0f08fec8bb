"""The score on real facts: answers of a stock instruction model about countries, elements and invented places."""
