"""The CA file of PostgreSQL that an environment names as PG_SSLROOTCERT, and that its bundle ships."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from invoke import Exit

ROOT = Path(__file__).resolve().parents[1]
# Its name in the bundle, which is PG_SSLROOTCERT for the function.
SHIPPED_AS = "postgres-ca.pem"
SOURCE = "a file of CA certificates, such as https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem for RDS"


def find(cfg: Mapping[str, str]) -> Path | None:
    """Return the file that PG_SSLROOTCERT names, None if it is empty; raises Exit if it cannot be used.

    A relative path starts at env/.
    """
    given = cfg.get("PG_SSLROOTCERT")
    if not given:
        return None
    path = ROOT / "env" / Path(given).expanduser()
    fault = ""
    try:
        content = path.read_text()
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        fault = "it holds no certificate"
    except (OSError, ValueError) as error:
        fault = getattr(error, "strerror", None) or "it is not a text file"
    else:
        fault = "it has a private key" if "PRIVATE KEY" in content else ""
    if fault:
        raise Exit(f"PG_SSLROOTCERT {path} cannot be used: {fault}; name {SOURCE}. Nothing was changed.")
    return path
