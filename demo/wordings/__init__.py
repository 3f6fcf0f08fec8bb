"""The wordings in which the demo's texts state facts and ask for them."""
