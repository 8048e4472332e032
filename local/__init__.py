"""The cloud on this machine: restate-server, PostgreSQL, AWS Lambda (ministack) and the Oracle stand-in."""
