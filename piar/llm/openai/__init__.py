"""OpenAI-compatible endpoints: asked over HTTP, by request files, by batches."""
