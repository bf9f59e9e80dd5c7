"""Writers of trained models for other runtimes, and classes that run what was written."""
