"""Follows the log files of every instance and answers queries on them."""
