"""Bytes on connections: HTTP, gRPC, TLS, proxies, and their exact stamps."""
