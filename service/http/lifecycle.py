"""Whether the service is about to stop, which readiness tells before anything else changes."""


class Lifecycle:
    def __init__(self) -> None:
        self.is_stopping = False

    def stop(self) -> None:
        """From now on `/health/ready` is 503, and every response ends its connection."""
        self.is_stopping = True
