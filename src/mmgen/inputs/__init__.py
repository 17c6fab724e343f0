"""What is given: pictures, prompts, conversations. Refuses to know models."""
