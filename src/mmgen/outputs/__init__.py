"""Where results go: files, streams, the journal and what is made of it. Refuses to know models."""
