"""Commands, as the command line calls them."""
