"""A distributed pool of long-lived LLM agents on Ray."""
