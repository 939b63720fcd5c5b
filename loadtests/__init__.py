"""What the service does under load: arrivals that do not wait for it, and objectives."""
