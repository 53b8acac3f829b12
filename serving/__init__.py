"""The service: HTTP, MCP and the page around the query pipeline."""
