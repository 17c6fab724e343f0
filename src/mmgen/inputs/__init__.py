"""Read the files that users give: pictures, prompts, conversations. Refuses to know models."""
