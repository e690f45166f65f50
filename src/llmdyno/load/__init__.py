"""Users and arrivals → records."""
