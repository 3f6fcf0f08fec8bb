"""The synthetic worlds of made-up people: their texts, and the training, growth and scoring of small models on them."""
