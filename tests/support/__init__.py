"""What tests share: servers, engines, tiny models, exact formulas. Nothing in here is a test."""
