"""What a server would do, from its model's shape, its GPU and its scheduler's rules."""
