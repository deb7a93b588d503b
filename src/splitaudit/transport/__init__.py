"""Split learning between processes and machines: a transport, what the server does behind it, what a client does."""
