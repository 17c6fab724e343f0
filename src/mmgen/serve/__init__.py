"""A model that stays loaded, behind an OpenAI-compatible address."""
