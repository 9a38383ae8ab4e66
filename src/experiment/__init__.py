"""The experiment: what a user replaces. Data, models, the training loop and its two commands."""
