"""The wire: connections that carry HTTP/1.1 or gRPC, and the exact time of each read."""
