"""Live results: pushed when they change, over server-sent events and a WebSocket."""
