"""The frozen base and what is trained on it: loading, attaching, gathering, saving adapters."""
