"What happens to a vision network when you scale it: count it, time it, retrain it."
__version__ = "0.1.0"
