"""A node's certificate and the roots that it believes, on its disk and in its connections."""
