"""What this machine is: hardware, installed versions, limits."""
