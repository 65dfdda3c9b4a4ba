"""Running as a service: what the service managers of three systems are told, and a host of our own for Windows."""
