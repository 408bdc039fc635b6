"""The demo: a synthetic archive of encoded videos whose classes are motions, and a small teacher for it."""
